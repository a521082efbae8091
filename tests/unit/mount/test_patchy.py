"""When a file is opened to be read: whether the kernel had better forget what it keeps of it."""

from __future__ import annotations

from idemfs.mount.contents import PatchyFiles

NODE, OTHER = 7, 8


def test_a_file_written_in_whole_pages_is_never_patchy() -> None:
    files = PatchyFiles()
    for offset in range(0, 1 << 20, 1 << 16):
        files.written(NODE, offset, 1 << 16)
    assert not files.pop(NODE, 1 << 20)


def test_a_small_file_written_at_once_is_read_at_once_either_way() -> None:
    files = PatchyFiles()
    files.written(NODE, 0, 1000)
    assert not files.pop(NODE, 1000)


def test_a_file_written_in_uneven_pieces_is_patchy_until_it_is_opened() -> None:
    files = PatchyFiles()
    for offset in range(0, 102_400, 10_240):
        files.written(NODE, offset, 10_240)
    assert not files.pop(OTHER, 102_400)
    assert files.pop(NODE, 102_400)
    assert not files.pop(NODE, 102_400)


def test_a_large_file_with_few_uneven_places_is_better_kept() -> None:
    files = PatchyFiles()
    for offset in range(100, 500_000, 100_000):
        files.written(NODE, offset, 10)
    assert not files.pop(NODE, 1 << 30)
