"""The policy of a fileset: when its snapshots are taken, and which of them are kept; and how far its schedule has come.

Records of the small table, both written by ``automatic``::

    policy           JSON object; what is missing has the value that ``Policy`` names
    schedule state   done until, ns (i64): what was due up to then has been dealt with

A policy is a store's own: it is not replicated, and a standby has one of its own or none.

Threads: any; everything here is values.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.errors import BadPolicy, Damaged, FormatTooNew

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import tzinfo


class Policy(NamedTuple):
    """0 and the empty text mean: no such rule."""

    every_seconds: int = 0
    """A snapshot at each multiple of so many seconds since 1970-01-01 UTC."""
    cron: str = ""
    """Five fields, as in crontab(5), in the time of ``zone``."""
    zone: str = "UTC"
    """Name in the tz database: for ``cron``, and for where hours, days, weeks, months and years begin."""
    after_bytes: int = 0
    """A snapshot as soon as so much content is there that the newest snapshot has not."""
    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    """The newest of each of so many hours … years that have one."""
    keep_matching: str = ""
    """A regular expression: a snapshot in whose name it is found is kept."""
    keep_free_bytes: int = 0
    """Below so much free space on the host the oldest go, though a count keeps them."""
    prune_matching: str = ""
    """A regular expression: not only automatic snapshots are subject to these rules, also these."""
    lock_seconds: int = 0
    """Each snapshot that the schedule takes is locked for so long."""


def pack(policy: Policy) -> bytes:
    from json import dumps

    fields = policy._asdict()
    return dumps({name: value for name, value in fields.items() if value != Policy._field_defaults[name]}).encode()


def unpack(value: bytes | None) -> Policy:
    """Raises ``Damaged``; ``FormatTooNew`` for rules unknown here, which must not be broken."""
    if value is None:
        return Policy()
    from json import loads

    try:
        fields = loads(value)
    except ValueError as bad:
        raise Damaged("the record of a schedule is damaged") from bad
    if not isinstance(fields, dict):
        raise Damaged("the record of a schedule is damaged")
    unknown = fields.keys() - Policy._field_defaults.keys()
    if unknown:
        raise FormatTooNew(f"a newer idemfs wrote the schedule; this one does not know {', '.join(sorted(unknown))}")
    if any(type(given) is not type(Policy._field_defaults[name]) for name, given in fields.items()):
        raise Damaged("the record of a schedule is damaged")
    if any(isinstance(given, int) and given < 0 for given in fields.values()):
        raise Damaged("the record of a schedule is damaged")
    return Policy(**fields)


def pack_done(done_ns: int) -> bytes:
    return done_ns.to_bytes(8, "little", signed=True)


def unpack_done(value: bytes) -> int:
    return int.from_bytes(value, "little", signed=True)


def zone_of(name: str) -> tzinfo:
    """Raises ``BadPolicy``."""
    from datetime import UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadPolicy(
            f"this machine's tz database has no time zone {name!r}; write for example UTC or Europe/Berlin "
            "(no zone at all: install tzdata)"
        ) from None
