"""What files hold: one suite for every way to a tree."""

from __future__ import annotations

import errno
import io
import os
from random import Random

import pytest

from idemfs import FileSystem
from tests.conformance.filesystem.subject import fails

SIZES = [0, 1, 1535, 1536, 1537, 4095, 4096, 4097, 8192, 12_345, 131_072, 131_073, 300_000]
"""About the ends of inline files and of blocks of 4 KiB and 128 KiB."""


def pattern(size: int, seed: int = 0) -> bytes:
    return Random(size + seed).randbytes(size)


class Contents:
    @pytest.mark.parametrize("size", SIZES)
    def test_what_is_written_is_read(self, fs: FileSystem, size: int) -> None:
        data = pattern(size)
        assert fs.write_bytes("/f", data) == size
        assert fs.read_bytes("/f") == data and fs.stat("/f").st_size == size
        other = pattern(size // 2 + 1, 1)
        assert fs.write_bytes("/f", bytearray(other)) == len(other)
        assert fs.read_bytes("/f") == other
        with fs.open("/g", "wb") as file:
            assert file.write(memoryview(data)) == size
        with fs.open("/g", "rb") as file:
            assert file.read() == data and file.read() == b""

    def test_nothing_of_a_replaced_file_stays(self, fs: FileSystem) -> None:
        for size in reversed(SIZES):
            fs.write_bytes("/f", pattern(size))
            assert fs.read_bytes("/f") == pattern(size)

    @pytest.mark.parametrize("old", [0, 700, 4096, 10_000, 200_000])
    @pytest.mark.parametrize("new", [0, 1, 700, 1536, 1537, 4096, 9_999, 131_072, 300_001])
    def test_truncating_both_ways(self, fs: FileSystem, old: int, new: int) -> None:
        data = pattern(old)
        fs.write_bytes("/f", data)
        fs.truncate("/f", new)
        wanted = data[:new] + bytes(max(0, new - old))
        assert fs.read_bytes("/f") == wanted and fs.stat("/f").st_size == new
        fs.truncate("/f", old + 5000)
        assert fs.read_bytes("/f") == (wanted + bytes(old + 5000))[: old + 5000]

    def test_truncating_what_cannot_be(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        fs.write_bytes("/f", b"")
        with fails(errno.EISDIR, "/d"):
            fs.truncate("/d", 0)
        with fails(errno.EINVAL):
            fs.truncate("/f", -1)
        with fails(errno.ENOENT):
            fs.truncate("/no", 0)

    def test_random_changes(self, fs: FileSystem, seed: int) -> None:
        rng = Random(seed)
        model = bytearray()
        with fs.open("/f", "w+b", buffering=0) as file:
            for _ in range(400):
                where = rng.choice((0, rng.randrange(200_000), len(model), rng.randrange(len(model) + 1)))
                size = rng.choice((1, 10, 4096, rng.randrange(10_000), 140_000))
                match rng.randrange(5):
                    case 0 | 1:
                        data = rng.randbytes(size)
                        file.seek(where)
                        assert file.write(data) == size
                        model.extend(bytes(max(0, where - len(model))))
                        model[where : where + size] = data
                    case 2:
                        file.truncate(where)
                        del model[where:]
                        model.extend(bytes(where - len(model)))
                    case 3:
                        fs.punch_hole("/f", where, size)
                        end = min(where + size, len(model))
                        model[where:end] = bytes(max(0, end - where))
                    case _:
                        file.seek(where)
                        assert file.read(size) == model[where : where + size]
        assert fs.read_bytes("/f") == model

    def test_sparse_files(self, fs: FileSystem) -> None:
        with fs.open("/f", "wb") as file:
            file.seek(50_000_000)
            file.write(b"end")
        assert fs.stat("/f").st_size == 50_000_003
        assert fs.stat("/f").st_blocks * 512 < 1_000_000
        with fs.open("/f", "rb", buffering=0) as file:
            assert file.read(1000) == bytes(1000)
            assert file.seek(0, os.SEEK_DATA) >= 49_000_000
            assert file.seek(0, os.SEEK_HOLE) == 0
            assert file.seek(50_000_001, os.SEEK_HOLE) == 50_000_003
            with fails(errno.ENXIO):
                file.seek(50_000_003, os.SEEK_DATA)
            file.seek(49_999_990)
            assert file.read() == bytes(10) + b"end"

    def test_punching(self, fs: FileSystem) -> None:
        block = fs.stat("/").st_blksize
        data = pattern(10 * block)
        fs.write_bytes("/f", data)
        used = fs.stat("/f").st_blocks
        fs.punch_hole("/f", block + 100, 5 * block)
        wanted = data[: block + 100] + bytes(5 * block) + data[6 * block + 100 :]
        assert fs.read_bytes("/f") == wanted
        assert fs.stat("/f").st_size == len(data) and fs.stat("/f").st_blocks < used
        fs.punch_hole("/f", 9 * block, 100 * block)
        assert fs.read_bytes("/f") == wanted[: 9 * block] + bytes(block)
        for offset, size in ((-1, 1), (0, 0), (0, -1)):
            with fails(errno.EINVAL):
                fs.punch_hole("/f", offset, size)

    def test_appending_from_two_sides(self, fs: FileSystem) -> None:
        with fs.open("/f", "ab", buffering=0) as one, fs.open("/f", "ab", buffering=0) as two:
            for index in range(50):
                one.write(b"1" * index)
                two.write(b"2" * index)
            assert one.tell() < two.tell() == 2 * sum(range(50))
            one.seek(0)
            one.write(b"end")
        wanted = b"".join(b"1" * index + b"2" * index for index in range(50)) + b"end"
        assert fs.read_bytes("/f") == wanted

    def test_unlinked_while_open(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", pattern(20_000))
        with fs.open("/f", "r+b", buffering=0) as file:
            fs.unlink("/f")
            assert not fs.exists("/f")
            fs.write_bytes("/f", b"another")
            assert file.read() == pattern(20_000)
            file.write(b"more")
            file.seek(20_000)
            assert file.read() == b"more"
            with fs.open("/f", "rb") as other:
                assert other.read() == b"another"
        assert fs.read_bytes("/f") == b"another"

    def test_truncated_while_open(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", pattern(20_000))
        with fs.open("/f", "rb", buffering=0) as file:
            file.seek(10_000)
            fs.truncate("/f", 5)
            assert file.read() == b""
            file.seek(0)
            assert file.read() == pattern(20_000)[:5]


class Handles:
    def test_modes(self, fs: FileSystem) -> None:
        with fails(errno.ENOENT, "/f"):
            fs.open("/f", "r+")
        with fs.open("/f", "x") as file:
            file.write("1")
        with fails(errno.EEXIST, "/f"):
            fs.open("/f", "x")
        with fs.open("/f", "a+") as file:
            file.write("2")
            file.seek(0)
            assert file.read() == "12"
        with fs.open("/f", "r+") as file:
            file.write("3")
        assert fs.read_bytes("/f") == b"32"
        with fs.open("/f", "w+") as file:
            assert file.read() == ""
            file.write("4")
            file.seek(0)
            assert file.read() == "4"

    @pytest.mark.parametrize("mode", ["", "rw", "z", "rtb", "r++", "b", "+"])
    def test_modes_that_mean_nothing(self, fs: FileSystem, mode: str) -> None:
        fs.write_bytes("/f", b"")
        with pytest.raises(ValueError):
            fs.open("/f", mode)

    def test_options_that_do_not_fit(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"1")
        with pytest.raises(ValueError):
            fs.open("/f", "r", buffering=0)
        for options in ({"encoding": "utf-8"}, {"errors": "strict"}, {"newline": ""}):
            with pytest.raises(ValueError):
                fs.open("/f", "rb", -1, **options)

    def test_what_a_handle_cannot_do(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"1")
        with fs.open("/f", "rb", buffering=0) as file:
            assert file.readable() and not file.writable() and file.seekable()
            with pytest.raises(OSError):
                file.write(b"x")
            with pytest.raises(OSError):
                file.truncate(0)
            with pytest.raises(OSError):
                file.seek(-1)
        with fs.open("/f", "wb", buffering=0) as file:
            assert not file.readable()
            with pytest.raises(OSError):
                file.read(1)
        for call in (file.read, file.tell, file.readable, lambda: file.write(b""), lambda: file.seek(0)):
            with pytest.raises(ValueError):
                call()
        assert file.closed
        file.close()

    def test_directories_cannot_be_opened(self, fs: FileSystem) -> None:
        fs.mkdir("/d")
        for mode in ("r", "r+", "w", "a"):
            with fails(errno.EISDIR, "/d"):
                fs.open("/d", mode)
        with fails(errno.EISDIR, "/d"):
            fs.read_bytes("/d")
        with fails(errno.EISDIR, "/d"):
            fs.write_bytes("/d", b"")

    def test_text(self, fs: FileSystem) -> None:
        fs.write_text("/f", "ä\nb\r\n")
        assert fs.read_bytes("/f") == "ä\nb\r\n".encode()
        assert fs.read_text("/f") == "ä\nb\n"
        with fs.open("/f", "w", encoding="latin-1", newline="\r\n") as file:
            file.write("ö\n")
        assert fs.read_bytes("/f") == b"\xf6\r\n"
        with fs.open("/f", encoding="latin-1") as file:
            assert file.readlines() == ["ö\n"]
        with fs.open("/lines", "w", buffering=1) as file:
            file.write("whole\npart")
            assert fs.read_bytes("/lines") in (b"whole\n", b"whole\npart")
        assert fs.read_bytes("/lines") == b"whole\npart"

    def test_buffers(self, fs: FileSystem) -> None:
        with fs.open("/f", "wb") as file:
            for index in range(100_000):
                file.write(index.to_bytes(4, "big"))
            assert file.tell() == 400_000
        with fs.open("/f", "rb") as file:
            file.seek(4 * 77_777)
            assert file.read(4) == (77_777).to_bytes(4, "big")
            target = bytearray(6)
            assert isinstance(file, io.BufferedReader) and file.readinto(target) == 6
            assert target == (77_778).to_bytes(4, "big") + (77_779).to_bytes(4, "big")[:2]
        with fs.open("/f", "r+b") as file:
            file.seek(8)
            file.write(b"####")
            file.seek(4)
            assert file.read(8) == (1).to_bytes(4, "big") + b"####"

    def test_positions(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"0123456789")
        with fs.open("/f", "rb", buffering=0) as file:
            assert (file.seek(-3, os.SEEK_END), file.read(2), file.tell()) == (7, b"78", 9)
            assert (file.seek(-4, os.SEEK_CUR), file.read()) == (5, b"56789")
            assert (file.seek(100), file.read(5), file.tell()) == (100, b"", 100)
            with pytest.raises((ValueError, OSError)):
                file.seek(0, 99)

    def test_times_and_set_id_bits(self, fs: FileSystem) -> None:
        fs.write_bytes("/f", b"1")
        fs.utime("/f", ns=(5, 5))
        fs.read_bytes("/f")
        assert fs.stat("/f").st_mtime_ns == 5
        with fs.open("/f", "ab") as file:
            file.write(b"2")
        assert fs.stat("/f").st_mtime_ns != 5
        fs.utime("/f", ns=(5, 5))
        fs.truncate("/f", 1)
        assert fs.stat("/f").st_mtime_ns != 5
        fs.utime("/f", ns=(5, 5))
        with fs.open("/f", "w"):
            assert fs.stat("/f").st_mtime_ns != 5


class OwnContents:
    """What only a store can show."""

    def test_files_have_16_tib_of_addresses(self, fs: FileSystem) -> None:
        end = 16 << 40
        with fs.open("/f", "w+b", buffering=0) as file:
            file.seek(end - 3)
            assert file.write(b"end") == 3
            with fails(errno.EFBIG):
                file.write(b"x")
            with fails(errno.EFBIG):
                file.truncate(end + 1)
            file.seek(end - 4)
            assert file.read() == b"\0end"
            file.seek(1 << 40)
            file.write(b"middle")
        assert fs.stat("/f").st_size == end and fs.stat("/f").st_blocks * 512 < 1 << 20
        assert [start >> 40 for start, _ in fs.data_ranges("/f")] == [1, 15]
        if fs.tree.store.block_size < 128 << 10:
            # Cutting goes over the numbers of all blocks, and there are billions of such small ones.
            return
        fs.truncate("/f", (1 << 40) + 3)
        with fs.open("/f", "rb", buffering=0) as file:
            file.seek(1 << 40)
            assert file.read() == b"mid"

    def test_holes_are_exact(self, fs: FileSystem) -> None:
        block = fs.stat("/").st_blksize
        with fs.open("/f", "wb") as file:
            file.seek(3 * block)
            file.write(b"x" * 2 * block)
            file.seek(7 * block)
            file.write(b"y")
        assert fs.data_ranges("/f") == [(3 * block, 5 * block), (7 * block, 7 * block + 1)]
        fs.write_bytes("/zeros", bytes(10 * block))
        assert fs.data_ranges("/zeros") == [] and fs.stat("/zeros").st_blocks == 0
        fs.write_bytes("/small", b"123")
        assert fs.data_ranges("/small") == [(0, 3)]

    def test_what_has_no_content(self, fs: FileSystem) -> None:
        fs.mkfifo("/fifo")
        for mode in ("r", "w", "r+", "a"):
            with fails(errno.ENXIO, "/fifo"):
                fs.open("/fifo", mode)
        with fails(errno.EINVAL):
            fs.truncate("/fifo", 0)

    def test_a_large_write_at_once(self, fs: FileSystem) -> None:
        data = pattern(40_000_000)
        with fs.open("/f", "wb", buffering=0) as file:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
        assert fs.read_bytes("/f") == data
        fs.write_bytes("/g", data)
        assert fs.read_bytes("/g") == data
