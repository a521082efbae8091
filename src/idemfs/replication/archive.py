"""An archive: a directory of streams, and the manifest that says which chain of them leads to which snapshot.

::

    DIR/archive.json       see ``manifest``
    DIR/lock               whose owner writes
    DIR/streams/TIME-GUID.full.stream, TIME-GUID.change.stream         as 'idemfs send' writes them

A stream gets its name when all of it is durable, and counts when the manifest names it. So what an interrupted
write leaves is in no point, and is removed by the next prune. The streams of one instant come into the manifest
together. What the manifest names no more is removed after that.

Threads: one. Readers take no lock: a stream that was pruned meanwhile is missing for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

from xxhash import xxh3_128

from idemfs.engines import host
from idemfs.engines.lock import LOCK_NAME, StoreLock
from idemfs.errors import ArchiveError, StreamDamaged, StreamError, StreamInterrupted
from idemfs.ids import Guid
from idemfs.replication import manifest as manifests
from idemfs.replication.codec import Header, StreamReader
from idemfs.replication.manifest import Manifest, Point
from idemfs.store.peek import refuse_inside

STREAMS = "streams"
_NEW = ".new"
_READ_SIZE = 1 << 20


class Written(NamedTuple):
    """A stream that is durable under its name, and no point yet."""

    header: Header
    file: str
    bytes: int
    checksum: str


class Finding(NamedTuple):
    """What is wrong with one file; ``is_used``: whether points need it."""

    file: str
    problem: str
    is_used: bool = True


class Archive:
    """The archive at ``path``, from ``open_archive`` or ``create_archive``. ``manifest`` is what is durable."""

    def __init__(self, path: str, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    # -- reading -------------------------------------------------------------------------------------------

    def is_present(self, point: Point) -> bool:
        """Whether the file of a stream is there with all of its bytes; nothing is read."""
        try:
            return os.stat(self._file(point.file)).st_size == point.bytes
        except FileNotFoundError:
            return False

    def path_of(self, point: Point) -> str:
        return self._file(point.file)

    def standing(self) -> list[Point]:
        """Points that nothing is missing of, as far as can be seen without reading."""
        return manifests.standing(self.manifest.points, self.is_present)

    @contextmanager
    def stream(self, point: Point) -> Iterator[StreamReader]:
        """The stream of a point. Raises ``ArchiveError`` if it is missing or damaged; what came of it is kept."""
        try:
            with open(self._file(point.file), "rb", buffering=0) as file:
                reader = StreamReader(lambda size: file.read(size) or b"")
                if _names(reader.header) != (point.fileset, point.snapshot, point.digest, point.base):
                    raise ArchiveError("it is another stream than the one that was written under this name")
                yield reader
        except FileNotFoundError:
            raise ArchiveError(self.lost(point, "is missing")) from None
        except (StreamDamaged, StreamInterrupted, ArchiveError) as bad:
            raise ArchiveError(self.lost(point, f"is damaged: {bad}")) from bad

    def lost(self, point: Point, what: str) -> str:
        """What is wrong with the file of a point, and what can be had all the same."""
        left = manifests.standing(self.manifest.points, lambda each: each.file != point.file and self.is_present(each))
        newest = manifests.restorable(self.manifest, left)
        rest = "nothing can be restored" if newest is None else f"'--to {newest.operand}' can be restored"
        return f"{self._file(point.file)}: {what}; {rest}"

    def check(self) -> Iterator[Finding]:
        """Read all of it. Damage of what points need, and files that nobody needs."""
        for point in self.manifest.points:
            problem = self._problem(point)
            if problem:
                yield Finding(self._file(point.file), problem)
        known = {each.file for each in self.manifest.points}
        for name in sorted(os.listdir(self._file(""))):
            if name not in known:
                what = "an interrupted write left it" if name.endswith(_NEW) else "the manifest does not name it"
                yield Finding(self._file(name), f"is not used: {what}", is_used=False)

    def _problem(self, point: Point) -> str:
        try:
            found = read_stream(self._file(point.file))
        except FileNotFoundError:
            return "is missing"
        except StreamError as bad:
            return f"is damaged: {bad}"
        if _names(found.header) != (point.fileset, point.snapshot, point.digest, point.base):
            return "is another stream than the one that was written under this name"
        return "" if found.checksum == point.checksum else "is damaged: its checksum does not fit"

    # -- writing -------------------------------------------------------------------------------------------

    def write(
        self, header: Header, frames: Iterable[bytes], progress: Callable[[int], object] | None = None
    ) -> Written:
        """One stream, durable under its name; in no point before ``add``. Raises ``NoSpace``, what ``frames`` does."""
        name = _file_name(header)
        path = self._file(name)
        checksum, size = xxh3_128(), 0
        with _room(self.path):
            try:
                with open(path + _NEW, "wb") as file:
                    for frame in frames:
                        file.write(frame)
                        checksum.update(frame)
                        size += len(frame)
                        if progress is not None:
                            progress(size)
                    file.flush()
                    # crash: its name says that a stream is whole.
                    os.fsync(file.fileno())
            except BaseException:
                _remove(path + _NEW)
                raise
            os.rename(path + _NEW, path)
        return Written(header, name, size, checksum.hexdigest())

    def add(self, unit: Sequence[Written]) -> None:
        """Streams of one instant become points; durable on return."""
        with _room(self.path):
            _sync_directory(self._file(""))
        points = [_point(each, self.manifest.next_instant) for each in unit]
        full = {each.fileset for each in points if each.base is None}
        self.put(
            self.manifest._replace(
                epoch=max([self.manifest.epoch, *(each.header.epoch for each in unit)]),
                points=manifests.with_points(self.manifest.points, points),
                full_next=self.manifest.full_next - full,
            )
        )

    def put(self, manifest: Manifest) -> None:
        """Another manifest takes the place of the one there is; durable on return. Then what it lacks is removed."""
        if manifest == self.manifest:
            return
        with _room(self.path):
            _put(self.path, manifest)
        gone = {each.file for each in self.manifest.points} - {each.file for each in manifest.points}
        self.manifest = manifest
        for name in gone:
            _remove(self._file(name))

    def clear(self) -> None:
        """Remove what an interrupted write, or an interrupted prune, left; files of somebody else stay."""
        known = {each.file for each in self.manifest.points}
        for name in os.listdir(self._file("")):
            if name not in known and (name.endswith(f".stream{_NEW}") or self._is_own(name)):
                _remove(self._file(name))

    def _is_own(self, name: str) -> bool:
        """Whether a file is a stream of the line that is archived."""
        if not name.endswith(".stream"):
            return False
        try:
            with open(self._file(name), "rb", buffering=0) as file:
                return _line_of(StreamReader(lambda size: file.read(size) or b"").header) == self.manifest.line
        except StreamError:
            return False

    def _file(self, name: str) -> str:
        return os.path.join(self.path, STREAMS, name)


# -- opening -------------------------------------------------------------------------------------------


def open_archive(path: str) -> Archive:
    """To read it, or, with its lock, to write. Raises ``ArchiveError``."""
    try:
        with open(os.path.join(path, manifests.NAME), "rb") as file:
            manifest = manifests.unpack(file.read())
    except (FileNotFoundError, NotADirectoryError):
        if is_archive(path):
            raise ArchiveError(_rebuild(path, "is missing")) from None
        raise ArchiveError(f"{path}: no archive here; 'idemfs archive write' makes one") from None
    except ArchiveError as bad:
        raise ArchiveError(_rebuild(path, str(bad))) from None
    return Archive(path, manifest)


def _rebuild(path: str, what: str) -> str:
    return (
        f"{os.path.join(path, manifests.NAME)}: {what}; the streams say the same once more: "
        "'idemfs archive check --repair' makes it again"
    )


def is_archive(path: str) -> bool:
    """Whether there is one, be it damaged."""
    return any(os.path.lexists(os.path.join(path, name)) for name in (manifests.NAME, STREAMS))


def create_archive(path: str, guid: Guid, line: Guid) -> None:
    """An empty archive in a new or empty directory. Raises ``ArchiveError``, ``InsideStore``."""
    refuse_inside(path)
    os.makedirs(path, mode=0o700, exist_ok=True)
    if set(os.listdir(path)) - {LOCK_NAME}:
        raise ArchiveError(f"{path}: has files, and is no archive; name an empty directory, or none")
    with locked(path), _room(path):
        os.mkdir(os.path.join(path, STREAMS), mode=0o700)
        _put(path, Manifest(guid, line))


def locked(path: str) -> StoreLock:
    """The right to write to an archive. Raises ``StoreInUse``, ``StoreMissing``."""
    return StoreLock(path)


def rebuild(path: str, guid: Guid) -> Manifest:
    """Make the manifest again from what the streams say; the lock is the caller's. Damaged ones are left out.

    ``guid`` becomes that of the archive: holds that stores have for it are no more its own, and end by themselves.
    """
    found = []
    folder = os.path.join(path, STREAMS)
    for name in sorted(os.listdir(folder)):
        try:
            found.append(read_stream(os.path.join(folder, name)))
        except StreamError:
            # The check names it.
            continue
    found.sort(key=lambda each: (each.header.created_ns, each.header.base is not None))
    names = {_line_of(each.header) for each in found}
    if len(names) != 1:
        what = "has no whole stream" if not names else "has streams of several stores"
        raise ArchiveError(f"{folder}: {what}, so that the manifest cannot be made again")
    points = manifests.in_order(list(_with_instants(found)))
    manifest = Manifest(guid, names.pop(), max(each.header.epoch for each in found), tuple(points))
    with _room(path):
        _put(path, manifest)
    return manifest


def _with_instants(found: Sequence[Written]) -> Iterator[Point]:
    """Streams of one time that are of several filesets came together."""
    instant, time, filesets = 0, -1, set[Guid]()
    for each in found:
        header = each.header
        if header.created_ns != time or header.fileset in filesets:
            instant, time, filesets = instant + 1, header.created_ns, set()
        filesets.add(Guid(header.fileset))
        yield _point(each, instant)


def read_stream(path: str) -> Written:
    """Read all of a stream's file. Raises ``StreamError``, ``FileNotFoundError``."""
    checksum = xxh3_128()
    with open(path, "rb", buffering=0) as file:

        def read(size: int) -> bytes:
            data = file.read(min(size, _READ_SIZE)) or b""
            checksum.update(data)
            return data

        reader = StreamReader(read)
        for _ in reader.batches():
            continue
        if file.read(1):
            raise ArchiveError("something follows its end")
    return Written(reader.header, os.path.basename(path), reader.size, checksum.hexdigest())


# -- files ---------------------------------------------------------------------------------------------


def _names(header: Header) -> tuple[Guid, Guid, int, Guid | None]:
    base = None if header.base is None else Guid(header.base.guid)
    return Guid(header.fileset), Guid(header.target.guid), header.target.digest, base


def _line_of(header: Header) -> Guid:
    return Guid(header.fileset if header.description is None else header.description.line)


def _point(written: Written, instant: int) -> Point:
    header = written.header
    fileset, snapshot, digest, base = _names(header)
    name = "root" if header.description is None else header.description.name
    return Point(
        instant,
        fileset,
        name,
        snapshot,
        header.name,
        header.created_ns,
        digest,
        base,
        written.file,
        written.bytes,
        written.checksum,
    )


def _file_name(header: Header) -> str:
    time = datetime.fromtimestamp(header.created_ns // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    return f"{time}-{header.target.guid.hex()}.{'full' if header.base is None else 'change'}.stream"


def _put(path: str, manifest: Manifest) -> None:
    name = os.path.join(path, manifests.NAME)
    with open(name + _NEW, "wb") as file:
        file.write(manifests.pack(manifest))
        file.flush()
        # crash: the manifest is one or the other, and each is whole.
        os.fsync(file.fileno())
    os.rename(name + _NEW, name)
    _sync_directory(path)


def _sync_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # crash: the names of files are durable before anything says that they are there.
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove(path: str) -> None:
    """It may be gone already: somebody tidied up."""
    if os.path.exists(path):
        os.unlink(path)


@contextmanager
def _room(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is not None and host.is_full(error.errno):
            raise host.no_space(path) from error
        raise
