"""The store at a path that a stream is for, opened, or made as a standby when there is none; and in it the fileset.

A stream of the line that the store follows goes into the fileset of its guid. One of another line goes where
``--fileset`` says, side by side with what is there: the 48-bit numbers of its inodes stay, the fileset's differs.

A store that is made here belongs to no user yet: it gets no root directory of its own, and it is a standby before
anything can be written to it.

Threads: one.
"""

from __future__ import annotations

import os

from idemfs.clock import Clock
from idemfs.errors import FilesetExists, StreamRefused
from idemfs.format import role
from idemfs.format.role import Role, RoleRecord
from idemfs.format.tables import Fileset
from idemfs.ids import ROOT_FILESET, Guid
from idemfs.limits import INLINE_SIZE_MAX
from idemfs.replication import follow, holds
from idemfs.replication.apply import Received, judge_format, judge_name, receive_stream, refuse_unless_standby
from idemfs.replication.codec import Header, StreamReader
from idemfs.replication.describe import description_of
from idemfs.replication.description import Description
from idemfs.replication.holds import Protection
from idemfs.replication.records import START
from idemfs.snapshots import lines
from idemfs.snapshots.lines import Line
from idemfs.store.files import create_files, open_files
from idemfs.store.store import Store
from idemfs.vfs.tree import Tree

_ROOT_NAME = "root"


def open_standby(path: str, header: Header, *, is_beside: bool = False, clock: Clock | None = None) -> Tree:
    """The store at ``path``; when there is nothing, a new standby of the stream's source. The caller closes it.

    ``is_beside``: a new store gets a root fileset of its own, of which nothing will come.

    Raises ``StreamRefused`` when there is nothing and the stream is no full one, and as the functions that do it.
    """
    epoch = 1 if is_beside else header.epoch
    if _is_free(path):
        judge_name(header)
        _refuse_unless_full(path, header)
        guid = None if is_beside else line_of(header)
        first = RoleRecord(Role.STANDBY, epoch, epoch)
        create_files(path, block_size=header.block_size, fileset_guid=guid, first_role=first, clock=clock)
    # Committing in the background, since a slow stream is to be durable as it comes.
    store = open_files(path, clock=clock)
    try:
        if is_beside and _is_new(store):
            _make_standby(store, epoch)
        return Tree(store)
    except BaseException:
        store.abandon()
        raise


def line_of(header: Header) -> Guid:
    """The guid of the root fileset of the store that sends."""
    return header.fileset if header.description is None else header.description.line


def receive_into(tree: Tree, stream: StreamReader, name: str | None = None) -> Received:
    """Take a change set of any fileset, into the one of its guid or, of another line, into the one of this ``name``.

    The fileset is made when there is none. What the stream says of it beside its content is done in the group that
    makes the snapshot. Raises as ``receive``, ``FilesetExists``.
    """
    header, store = stream.header, tree.store
    description = header.description or Description(header.fileset, _ROOT_NAME)
    with store.exclusive():
        root = store.catalog.filesets[ROOT_FILESET]
        line = None if line_of(header) == root.guid else Line(line_of(header), 0)
        fileset = follow.find(store, header.fileset)
        refuse_unless_standby(tree)
        judge_name(header)
        if line is None and name is not None:
            raise StreamRefused(
                "the stream is of the store that this one is a standby of: receive it without --fileset"
            )
        if fileset is None:
            fileset = _made(tree, header, description, line, name)
    number = fileset.number
    also = (
        None if header.description is None or line is not None else lambda: _describe(tree, header.fileset, description)
    )
    outcome = receive_stream(tree, stream, fileset=number, also=also)
    if line is None or description.holds or description.locked_until_ns:
        with store.lock:
            wanted = Protection(description.holds, description.locked_until_ns)
            holds.protect(store, outcome.snapshot, wanted)
            # crash: nothing relies on it; the same stream, sent again, says it again.
            store.commit()
    return outcome


def _made(tree: Tree, header: Header, description: Description, line: Line | None, name: str | None) -> Fileset:
    """A fileset for a stream of which there is none. Raises ``StreamRefused``, ``FilesetExists``."""
    store = tree.store
    if line is not None and name is None:
        raise StreamRefused(
            "the stream is of another store, not of the one that this is a standby of: '--fileset NAME' receives it "
            "into a fileset of its own"
        )
    if name is not None and store.catalog.has_fileset(name):
        raise FilesetExists(f"a fileset named {name!r} exists, and is not what the stream is of: choose another name")
    if header.base is not None or header.after != START:
        raise StreamRefused(
            "the stream starts from a snapshot, and nothing of its fileset is here: send without --base first"
        )
    judge_format(tree, header)
    made = follow.make(store, header.fileset, name or description.name, description.compression, line)
    # crash: nothing relies on it; an empty fileset that appears nowhere is found here the next time.
    store.commit()
    return made


def _describe(tree: Tree, guid: Guid, description: Description) -> None:
    """Other filesets are as they are: of them the stream says nothing, but where this one appears."""
    store = tree.store
    wanted = {each.guid: description_of(store, each) for each in lines.own_filesets(store)}
    for each in lines.own_filesets(store):
        known = lines.policy_of(store, each.number) or b""
        wanted[each.guid] = wanted[each.guid]._replace(policy=known.decode())
    taken = any(each.name == description.name for other, each in wanted.items() if other != guid)
    name = wanted[guid].name if taken else description.name
    wanted[guid] = description._replace(name=name)
    follow.reconcile(tree, wanted)


def _is_free(path: str) -> bool:
    try:
        return not os.listdir(path)
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _refuse_unless_full(path: str, header: Header) -> None:
    if header.base is not None or header.after != START:
        raise StreamRefused(
            f"{path}: no store here, and the stream starts from a snapshot: send without --base to make a standby"
        )
    if header.inline_size != INLINE_SIZE_MAX:
        raise StreamRefused(
            f"{path}: the stream comes from a store with inline files up to {header.inline_size} bytes, "
            f"and this idemfs makes stores with {INLINE_SIZE_MAX}"
        )


def _is_new(store: Store) -> bool:
    """Whether nothing ever came into the store, not even a role."""
    is_empty = store.catalog.filesets[ROOT_FILESET].next_number == 1 and not store.catalog.all_snapshots(ROOT_FILESET)
    return is_empty and store.small.get(role.KEY) is None


def _make_standby(store: Store, epoch: int) -> None:
    with store.lock:
        store.admit(1, 100)
        store.small.put(role.KEY, role.pack(RoleRecord(Role.STANDBY, epoch, epoch)))
        # crash: a store with no role is a primary, so this one has its own before anybody can use it.
        store.commit()
