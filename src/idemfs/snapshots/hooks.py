"""The hooks of a fileset's schedule: commands around each snapshot that it takes. They are kept here and run elsewhere.

They stand in a record of their own beside the policy, since a policy travels to standbys and hooks do not: a command
is run where the administrator of that store has set it. The record is a JSON object, and missing without hooks::

    before, after       lists of lines for sh
    timeout_seconds     after so long one is killed

Threads: under the store's lock.
"""

from __future__ import annotations

from typing import NamedTuple

from idemfs.errors import BadPolicy, Damaged, HookFailed
from idemfs.format import keys
from idemfs.limits import HOOK_COUNT_MAX, HOOK_SECONDS_MAX, HOOK_SIZE_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import TypeAlias

    from idemfs.ids import FilesetId
    from idemfs.store.store import Store

    Quiesce: TypeAlias = Callable[["Hooks", str], AbstractContextManager[object]]
    """What brings programs to rest, and lets them go on, by the hooks of a fileset; and what the snapshot is called."""

TIMEOUT_SECONDS = 60.0


class Hooks(NamedTuple):
    """Lines for ``sh``: all of ``before`` are run in order, all of ``after`` in reverse order, whatever happened."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    timeout_seconds: float = TIMEOUT_SECONDS


def check(hooks: Hooks) -> None:
    """Raises ``BadPolicy``."""
    for command in (*hooks.before, *hooks.after):
        if not command.strip() or "\0" in command or len(command.encode(errors="surrogateescape")) > HOOK_SIZE_MAX:
            raise BadPolicy(f"a hook is a line for sh of at most {HOOK_SIZE_MAX} bytes, not {command[:40]!r}")
    if max(len(hooks.before), len(hooks.after)) > HOOK_COUNT_MAX:
        raise BadPolicy(f"a schedule has at most {HOOK_COUNT_MAX} hooks before and as many after")
    if not 0 < hooks.timeout_seconds <= HOOK_SECONDS_MAX:
        raise BadPolicy(f"a hook has more than 0 and at most {HOOK_SECONDS_MAX} seconds: not {hooks.timeout_seconds:g}")


def pack(hooks: Hooks) -> bytes:
    from json import dumps

    return dumps(hooks._asdict()).encode()


def unpack(value: bytes | None) -> Hooks:
    """Raises ``Damaged``."""
    if value is None:
        return Hooks()
    from json import loads

    try:
        fields = loads(value)
        before, after = (tuple(fields.get(name, ())) for name in ("before", "after"))
        hooks = Hooks(before, after, float(fields.get("timeout_seconds", TIMEOUT_SECONDS)))
        if fields.keys() - hooks._asdict().keys() or not all(isinstance(each, str) for each in (*before, *after)):
            raise ValueError
        check(hooks)
    except (ValueError, TypeError, AttributeError, RecursionError, BadPolicy) as bad:
        raise Damaged("the record of a schedule's hooks is damaged") from bad
    return hooks


def hooks_of(store: Store, fileset: FilesetId) -> Hooks:
    """What the fileset has, or none. Raises ``Damaged``."""
    with store.lock:
        return unpack(store.small.get(keys.hooks(fileset)))


def set_hooks(store: Store, fileset: FilesetId, wanted: Hooks) -> None:
    """Durable on return. Raises ``BadPolicy``, ``NoSpace``, ``CommitFailed``."""
    check(wanted)
    with store.lock:
        value = pack(wanted) if wanted.before or wanted.after else None
        store.admit(1, len(value or b"") + 100)
        store.small.put(keys.hooks(fileset), value)
        store.commit()


def no_hooks(hooks: Hooks, name: str) -> AbstractContextManager[object]:
    """Of who runs no commands: there must be none. Raises ``HookFailed``."""
    from contextlib import nullcontext

    if hooks.before or hooks.after:
        raise HookFailed(f"snapshot {name} has hooks, which nobody runs here")
    return nullcontext()
