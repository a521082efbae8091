"""Trees of the host go into a store and come out again as they were; mirrors change only what differs."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from idemfs import FileSystem
from idemfs.clock import System
from idemfs.engines.blocks.memory import MemoryBlocks
from idemfs.errors import NoSpace, NotPrimary
from idemfs.format import role
from idemfs.format.address import sector_of
from idemfs.format.role import Role, RoleRecord
from idemfs.testing.builders import assert_clean, memory_store
from idemfs.vfs.copying import Outcome, size_in_store, size_on_host
from idemfs.vfs.copying_in import put
from idemfs.vfs.copying_out import get
from idemfs.vfs.tree import Tree
from tests.interop import trees
from tests.interop.trees import describe, difference


class Told:
    """Who is told how a copy goes on; ``on_advance`` may interfere."""

    def __init__(self, on_advance: Callable[[], None] | None = None) -> None:
        self.files = self.size = 0
        self.failures: list[tuple[bytes, int | None]] = []
        self.warnings: list[str] = []
        self._on_advance = on_advance

    def advanced(self, files: int, size: int) -> None:
        self.files += files
        self.size += size
        if self._on_advance:
            self._on_advance()

    def failed(self, path: bytes, error: OSError) -> None:
        self.failures.append((path, error.errno))

    def warned(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(params=[4096, 131_072])
def fs(request: pytest.FixtureRequest) -> Iterator[FileSystem]:
    with FileSystem(Tree(memory_store(block_size=request.param, clock=System()))) as fs:
        yield fs
        fs.sync()
        assert_clean(fs.tree)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    trees.build(tmp_path / "source")
    return tmp_path / "source"


def put_all(fs: FileSystem, source: Path, target: str = "/", mirror: bool = False) -> Outcome:
    told = Told()
    outcome = put(fs.tree, os.fsencode(source), os.fsencode(target), mirror=mirror, watcher=told)
    assert (told.failures, told.warnings, outcome.failed_count) == ([], [], 0)
    assert told.files == outcome.file_count + outcome.kept_count
    return outcome


def get_all(fs: FileSystem, target: Path, source: str = "/") -> Outcome:
    told = Told()
    outcome = get(fs.reader, os.fsencode(source), os.fsencode(target), watcher=told)
    assert (told.failures, told.warnings, outcome.failed_count) == ([], [], 0)
    assert (told.files, told.size) == (outcome.file_count, outcome.byte_count)
    return outcome


@contextmanager
def another_user() -> Iterator[None]:
    if os.geteuid():
        yield
        return
    os.setegid(65533)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


# -- there and back ----------------------------------------------------------------------------------------


def test_everything_comes_out_as_it_went_in(fs: FileSystem, source: Path, tmp_path: Path) -> None:
    before = describe(source)
    count, size = size_on_host(os.fsencode(source))
    assert size > sum(len(what["content"]) for what in before.values() if what.get("links") == 1 and "content" in what)
    outcome = put_all(fs, source, "/a/b")
    assert outcome.file_count == count == len(before)
    assert size_in_store(fs.reader, b"/a/b")[0] == count
    get_all(fs, tmp_path / "copy", "/a/b")
    assert difference(before, describe(tmp_path / "copy")) == []
    assert describe(source) == before


def test_the_store_has_what_the_host_has(fs: FileSystem, source: Path) -> None:
    put_all(fs, source)
    for name, what in describe(source).items():
        path = os.fsencode(name)
        status = fs.lstat(path)
        assert (oct(status.st_mode), status.st_mtime_ns) == (what["mode"], what["mtime"]), name
        assert (status.st_uid, status.st_gid) == what["owner"] and status.st_rdev == what["rdev"]
        if "links" in what:
            assert status.st_nlink == what["links"]
            assert status.st_ino == fs.lstat(os.fsencode(what["same as"])).st_ino
        if "content" in what:
            assert fs.read_bytes(path) == what["content"]
    assert fs.stat("/sparse").st_blocks * 512 < 500_000 and fs.stat("/all-hole").st_blocks == 0


def test_a_snapshot_comes_out_as_it_was(fs: FileSystem, source: Path, tmp_path: Path) -> None:
    before = describe(source)
    put_all(fs, source)
    fs.snapshots.create("monday")
    fs.rmtree("/dir")
    fs.write_bytes("/small", b"other")
    fs.punch_hole("/sparse", 0, 50_000)
    fs.truncate("/all-hole", 1)
    get(fs.snapshots["monday"].reader, b"/", os.fsencode(tmp_path / "copy"))
    assert difference(before, describe(tmp_path / "copy")) == []


def test_single_files(fs: FileSystem, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"1" * 5000)
    os.symlink("f", tmp_path / "link")
    fs.mkdir("/d")
    for target, path in (("/d", "/d/f"), ("/g", "/g"), ("/x/y/z", "/x/y/z"), ("/new/", "/new/f"), ("/", "/f")):
        put_all(fs, tmp_path / "f", target)
        assert fs.read_bytes(path) == b"1" * 5000
    put_all(fs, tmp_path / "link", "/d")
    assert fs.read_bytes("/d/link") == b"1" * 5000 and not fs.is_symlink("/d/link")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("g", "h/i/j", "k/"):
        get(fs.reader, b"/d/f", os.fsencode(out) + b"/" + name.encode())
    get(fs.reader, b"/d/f", os.fsencode(out))
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == ["f", "g", "h/i/j", "k/f"]


def test_what_is_not_there_or_no_path(fs: FileSystem, tmp_path: Path) -> None:
    for source, target in ((tmp_path / "no", b"/d"), (tmp_path, b"d"), (tmp_path, b"")):
        with pytest.raises(OSError):
            put(fs.tree, os.fsencode(source), target)
    with pytest.raises(FileNotFoundError):
        get(fs.reader, b"/no", os.fsencode(tmp_path / "out"))
    assert fs.listdir("/") == [] and not (tmp_path / "out").exists()


def test_another_user_keeps_what_that_one_may(fs: FileSystem, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for parent in [home, *home.parents]:
        if parent != Path("/tmp") and parent != Path("/"):
            parent.chmod(0o777)
    with another_user():
        trees.build(home / "source")
        (home / "source" / "dir" / "deep" / "large").chmod(0o400)
        before = describe(home / "source", owners=False)
        put_all(fs, home / "source")
        get_all(fs, home / "copy")
        assert difference(before, describe(home / "copy", owners=False)) == []
        assert fs.stat("/small").st_uid == os.geteuid()


def test_another_users_rights_are_not_given_to_this_one(fs: FileSystem, tmp_path: Path) -> None:
    fs.write_bytes("/f", b"")
    fs.chown("/f", 7, 8)
    fs.chmod("/f", 0o6755)
    fs.write_bytes("/fs", b"")
    fs.setxattr("/fs", "trusted.a", b"1")
    fs.setxattr("/f", "trusted.b", b"2")
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent != Path("/tmp") and parent != Path("/"):
            parent.chmod(0o755)
    told = Told()
    with another_user():
        get(fs.reader, b"/", os.fsencode(tmp_path / "out"), watcher=told)
        assert os.stat(tmp_path / "out" / "f").st_mode & 0o7777 == 0o755
    assert told.failures == [] and len(told.warnings) == 1 and "trusted.*" in told.warnings[0]


# -- over what is there ------------------------------------------------------------------------------------


def test_files_are_replaced_and_others_stay(fs: FileSystem, source: Path) -> None:
    put_all(fs, source)
    fs.write_bytes("/small", b"changed")
    fs.link("/dir/blocks", "/my-own-name")
    fs.write_bytes("/mine", b"mine")
    fs.utime("/mine", ns=(3, 3))
    put_all(fs, source)
    assert fs.read_bytes("/small") == b"small" and fs.stat("/hard-0").st_ino == fs.stat("/small").st_ino
    assert fs.read_bytes("/mine") == b"mine" and fs.stat("/mine").st_mtime_ns == 3
    assert fs.stat("/my-own-name").st_nlink == 1
    assert not [name for name in fs.listdir("/") if name.startswith(".idemfs")]


def test_what_is_of_another_kind_is_reported_and_stays(fs: FileSystem, tmp_path: Path) -> None:
    (tmp_path / "s" / "d").mkdir(parents=True)
    (tmp_path / "s" / "f").write_bytes(b"1")
    (tmp_path / "s" / "z").write_bytes(b"2")
    fs.mkdir("/f")
    fs.write_bytes("/d", b"file")
    told = Told()
    outcome = put(fs.tree, os.fsencode(tmp_path / "s"), b"/", watcher=told)
    top = os.fsencode(tmp_path / "s")
    assert told.failures == [(top + b"/d", errno.ENOTDIR), (top + b"/f", errno.EISDIR)] and outcome.failed_count == 2
    assert fs.read_bytes("/z") == b"2" and fs.read_bytes("/d") == b"file"
    told = Told()
    out = tmp_path / "out"
    (out / "d").mkdir(parents=True)
    (out / "f").write_bytes(b"")
    get(fs.reader, b"/", os.fsencode(out), watcher=told)
    assert {path for path, _ in told.failures} == {os.fsencode(out / "d"), os.fsencode(out / "f")}
    assert (out / "z").read_bytes() == b"2" and (out / "d").is_dir()
    assert sorted(os.listdir(out)) == ["d", "f", "z"]


def test_links_of_the_host_are_not_followed(fs: FileSystem, tmp_path: Path) -> None:
    outside, out = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    out.mkdir()
    (outside / "kept").write_bytes(b"kept")
    os.symlink(outside, out / "d")
    os.symlink(outside / "kept", out / "f")
    fs.makedirs("/d/sub")
    fs.write_bytes("/f", b"new")
    told = Told()
    get(fs.reader, b"/", os.fsencode(out), watcher=told)
    assert told.failures == [(os.fsencode(out / "d"), errno.ENOTDIR)]
    assert os.listdir(outside) == ["kept"] and (outside / "kept").read_bytes() == b"kept"
    assert (out / "f").read_bytes() == b"new" and not (out / "f").is_symlink()


def test_getting_twice_gives_the_same(fs: FileSystem, source: Path, tmp_path: Path) -> None:
    put_all(fs, source)
    get_all(fs, tmp_path / "copy")
    once = describe(tmp_path / "copy")
    get_all(fs, tmp_path / "copy")
    assert difference(once, describe(tmp_path / "copy")) == []


# -- mirrors -----------------------------------------------------------------------------------------------


def test_a_mirror_of_what_is_equal_changes_nothing(fs: FileSystem, source: Path) -> None:
    put_all(fs, source, "/m")
    digest = fs.snapshots.create("before").digest
    outcome = put_all(fs, source, "/m", mirror=True)
    assert list(fs.snapshots.diff("before")) == [] and fs.snapshots.create("after").digest == digest
    assert outcome.byte_count == 0 and outcome.removed_count == 0 and outcome.kept_count > 10


def test_a_mirror_follows_every_change(fs: FileSystem, source: Path, tmp_path: Path) -> None:
    put_all(fs, source, mirror=True)
    top = source
    (top / "small").write_bytes(b"SMALL")
    (top / "dir" / "blocks").unlink()
    (top / "dir" / "blocks").mkdir()
    (top / "dir" / "blocks" / "now-a-directory").write_bytes(b"x" * 9000)
    os.rename(top / "dir" / "deep", top / "deep-elsewhere")
    (top / "link").unlink()
    os.symlink("hard-0", top / "link")
    (top / "fifo").unlink()
    (top / "fifo").write_bytes(b"now a file")
    (top / "empty").chmod(0o711)
    if trees.has_xattrs(top):
        os.setxattr(top / "dir", "user.large", b"small")
        os.setxattr(top / "small", "user.new", b"1")
        os.removexattr(top / "small", "user.one")
    (top / "hard-0").unlink()
    (top / "dir" / "pair-2").unlink()
    (top / "dir" / "pair-2").write_bytes(b"no pair any more")
    with open(top / "sparse", "r+b") as file:
        file.seek(5_000_000)
        file.write(b"c")
    fs.write_bytes("/dir/only-here", b"")
    fs.makedirs("/gone/with/all")
    fs.chmod("/all-hole", 0o600)
    outcome = put_all(fs, source, mirror=True)
    assert outcome.removed_count > 5 and outcome.kept_count > 5
    get_all(fs, tmp_path / "copy")
    assert difference(describe(source), describe(tmp_path / "copy")) == []


def test_a_mirror_follows_new_ties_between_the_same_files(fs: FileSystem, tmp_path: Path) -> None:
    """Content and times are equal throughout; only who is linked to whom changes."""
    top = tmp_path / "s"
    top.mkdir()

    def arrange(groups: list[str]) -> None:
        for path in top.iterdir():
            path.unlink()
        for group in groups:
            (top / group[0]).write_bytes(b"same")
            os.utime(top / group[0], ns=(7, 7))
            for name in group[1:]:
                os.link(top / group[0], top / name)

    for groups in (["ab", "cd"], ["ac", "bd"], ["abcd"], ["a", "bcd"], ["a", "b", "c", "d"], ["ad", "b", "c"]):
        arrange(groups)
        put_all(fs, top, "/m", mirror=True)
        tied: dict[int, str] = {}
        for name in "abcd":
            ino = fs.stat(f"/m/{name}").st_ino
            tied[ino] = tied.get(ino, "") + name
        assert sorted(tied.values()) == sorted(groups)


# -- what goes wrong ---------------------------------------------------------------------------------------


def test_a_file_that_vanishes_is_reported_and_the_rest_is_copied(fs: FileSystem, tmp_path: Path) -> None:
    top = tmp_path / "s"
    (top / "dir").mkdir(parents=True)
    for name in ("1", "2", "3", "dir/4"):
        (top / name).write_bytes(name.encode())

    def vanish() -> None:
        (top / "2").unlink(missing_ok=True)

    told = Told(vanish)
    outcome = put(fs.tree, os.fsencode(top), b"/", watcher=told)
    assert told.failures == [(os.fsencode(top / "2"), errno.ENOENT)] and outcome.failed_count == 1
    assert fs.listdir("/") == ["1", "3", "dir"] and fs.read_bytes("/dir/4") == b"dir/4"


def test_the_store_itself_is_left_out(fs: FileSystem, source: Path) -> None:
    status = os.stat(source / "dir")
    told = Told()
    put(fs.tree, os.fsencode(source), b"/", watcher=told, leave_out=[(status.st_dev, status.st_ino)])
    assert not fs.exists("/dir") and fs.exists("/small") and len(told.warnings) == 1


def test_no_half_file_stays_when_the_store_is_full(tmp_path: Path) -> None:
    store = memory_store(blocks=MemoryBlocks(capacity_sectors=200), clock=System())
    with FileSystem(Tree(store)) as fs:
        (tmp_path / "s").mkdir()
        for index in range(3):
            (tmp_path / "s" / str(index)).write_bytes(os.urandom(300_000))
        with pytest.raises(NoSpace):
            put(fs.tree, os.fsencode(tmp_path / "s"), b"/")
        assert fs.listdir("/") in (["0"], ["0", "1"])
        for name in fs.listdir("/"):
            assert fs.read_bytes("/" + name) == (tmp_path / "s" / name).read_bytes()
        fs.sync()
        assert_clean(fs.tree)


def test_a_damaged_file_is_reported_and_the_rest_comes_out(tmp_path: Path) -> None:
    blocks = MemoryBlocks()
    with FileSystem(Tree(memory_store(blocks=blocks, clock=System()))) as fs:
        for name in ("/1", "/2", "/3"):
            fs.write_bytes(name, os.urandom(20_000))
        fs.sync()
        address, _ = fs.tree.active.block(fs.tree.reader.lookup(fs.tree.root, b"2"), 1)
        blocks.write(sector_of(address), b"damage")
        fs.tree.store.data.drop_cache()
        told = Told()
        get(fs.reader, b"/", os.fsencode(tmp_path / "out"), watcher=told)
        assert told.failures == [(os.fsencode(tmp_path / "out" / "2"), errno.EIO)]
        assert sorted(os.listdir(tmp_path / "out")) == ["1", "3"]


def test_a_standby_takes_nothing(tmp_path: Path) -> None:
    store = memory_store(clock=System())
    tree = Tree(store)
    with store.lock:
        store.admit(1, 100)
        store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, 1, 1)))
        store.commit()
    tree.reload_role()
    with pytest.raises(NotPrimary):
        put(tree, os.fsencode(tmp_path), b"/")
