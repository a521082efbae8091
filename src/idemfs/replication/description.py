"""What a fileset is beside its content: a JSON object of at most 1 MiB behind the header of a stream. Pure.

::

    line       guid of the root fileset of the store that sends, as are all guids here in hexadecimal
    name       of the fileset
    parent, junction    guid of the fileset, and the 48-bit number of the directory in it, where this one appears
    compression, quota_bytes, quota_inodes, flags       as in its usage record
    policy     text of its policy record: when snapshots are taken, and which are kept
    holds      [[owner, expires in ns], …] on the snapshot that is sent; locked_until_ns: its lock

What is missing has the value that ``Description`` names. An unknown field means something that this idemfs cannot do,
so the stream is refused. With ``origin`` the stream is a clone's, and begins from the snapshot that the clone was made
from, which is the base in its header::

    origin     {fileset: its guid, snapshot: its guid, next_number: from which on inodes are the clone's own}
"""

from __future__ import annotations

from json import dumps, loads
from typing import NamedTuple

from idemfs.errors import Damaged, FormatTooNew, StreamDamaged, StreamTooNew
from idemfs.format.tables import SNAPSHOTS_COUNT, ZSTD_COMPRESSION
from idemfs.ids import NUMBER_MASK, Guid
from idemfs.limits import FILESET_NAME_SIZE_MAX, RECORD_SIZE_MAX, SNAPSHOT_NAME_SIZE_MAX
from idemfs.snapshots import policy as policies

SIZE_MAX = 1 << 20
_NUMBER_MAX = (1 << 63) - 1


class Origin(NamedTuple):
    """The snapshot that a clone was made from. Inodes with ``next_number`` or a greater one are the clone's own."""

    fileset: Guid
    snapshot: Guid
    next_number: int


class Description(NamedTuple):
    """``parent`` None: it appears nowhere, or is the root fileset. ``policy`` is empty when there is none."""

    line: Guid
    name: str
    parent: Guid | None = None
    junction: int = 0
    compression: int = 0
    quota_bytes: int = 0
    quota_inodes: int = 0
    flags: int = 0
    policy: str = ""
    holds: tuple[tuple[str, int], ...] = ()
    locked_until_ns: int = 0
    origin: Origin | None = None


def pack(description: Description) -> bytes:
    """Fields that say nothing new are left out."""
    fields = {
        name: value
        for name, value in description._asdict().items()
        if name not in Description._field_defaults or value != Description._field_defaults[name]
    }
    for name in ("line", "parent"):
        if name in fields:
            fields[name] = fields[name].hex()
    if description.origin is not None:
        fileset, snapshot, next_number = description.origin
        fields["origin"] = {"fileset": fileset.hex(), "snapshot": snapshot.hex(), "next_number": next_number}
    return dumps(fields).encode()


def unpack(value: bytes) -> Description:
    """Raises ``StreamDamaged``, ``StreamTooNew``."""
    if len(value) > SIZE_MAX:
        raise _bad()
    try:
        fields = loads(value)
    except (ValueError, RecursionError) as bad:
        raise _bad() from bad
    if not isinstance(fields, dict):
        raise _bad()
    unknown = fields.keys() - set(Description._fields)
    if unknown:
        names = ", ".join(sorted(unknown))[:100]
        raise StreamTooNew(
            f"the stream says of its fileset what this idemfs does not know ({names!r}): install a newer one"
        )
    if not isinstance(fields.get("line"), str) or not isinstance(fields.get("name"), str):
        raise _bad()
    made = Description(
        line=_guid(fields["line"]),
        name=_text(fields["name"], FILESET_NAME_SIZE_MAX),
        parent=_guid(fields["parent"]) if "parent" in fields else None,
        junction=_number(fields.get("junction", 0), NUMBER_MASK),
        compression=_number(fields.get("compression", 0), ZSTD_COMPRESSION),
        quota_bytes=_number(fields.get("quota_bytes", 0)),
        quota_inodes=_number(fields.get("quota_inodes", 0)),
        flags=_number(fields.get("flags", 0), SNAPSHOTS_COUNT),
        policy=_policy(fields.get("policy", "")),
        holds=_holds(fields.get("holds", [])),
        locked_until_ns=_number(fields.get("locked_until_ns", 0)),
        origin=_origin(fields["origin"]) if "origin" in fields else None,
    )
    if (made.parent is None) != (made.junction == 0):
        raise _bad()
    return made


def _bad() -> StreamDamaged:
    return StreamDamaged("the stream is damaged: what it says of its fileset makes no sense")


def _guid(value: object) -> Guid:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError as bad:
        raise _bad() from bad
    if len(found) != 16:
        raise _bad()
    return Guid(found)


def _origin(value: object) -> Origin:
    if not isinstance(value, dict):
        raise _bad()
    unknown = value.keys() - set(Origin._fields)
    if unknown:
        names = ", ".join(sorted(unknown))[:100]
        raise StreamTooNew(
            f"the stream says of its clone what this idemfs does not know ({names!r}): install a newer one"
        )
    next_number = _number(value.get("next_number"), NUMBER_MASK)
    return Origin(_guid(value.get("fileset")), _guid(value.get("snapshot")), next_number)


def _text(value: object, size_max: int) -> str:
    try:
        if isinstance(value, str) and len(value.encode()) <= size_max:
            return value
    except UnicodeEncodeError as bad:
        raise _bad() from bad
    raise _bad()


def _number(value: object, most: int = _NUMBER_MAX) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise _bad()
    return value


def _policy(value: object) -> str:
    text = _text(value, RECORD_SIZE_MAX)
    try:
        policies.unpack(text.encode() or None)
    except Damaged as bad:
        raise _bad() from bad
    except FormatTooNew as new:
        raise StreamTooNew(f"the stream has a schedule that this idemfs cannot follow: {new}") from new
    return text


def _holds(value: object) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, list):
        raise _bad()
    found = []
    for each in value:
        if not isinstance(each, list) or len(each) != 2:
            raise _bad()
        owner = _text(each[0], SNAPSHOT_NAME_SIZE_MAX)
        if not owner or not owner.isprintable():
            raise _bad()
        found.append((owner, _number(each[1])))
    return tuple(found)
