"""What a member of the socket's group may ask for: a list, and whatever is not on it is refused.

The owner of a store carries commands out with its own rights, mostly root's. So a member gets only what reads the
store's records, and to take a snapshot: nothing that names a file of the machine or reads or changes one in the
store, nothing that runs a program (as the hooks of ``snapshot create`` do), and no other store than this one.

Threads: any; everything here is values, but for where the given path of the store leads.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from idemfs.errors import NotPermitted

ALLOWED: dict[tuple[str, ...], frozenset[str]] = {
    ("status",): frozenset({"--json"}),
    ("info",): frozenset({"--json"}),
    ("automatic", "status"): frozenset({"--json"}),
    ("history",): frozenset({"--json"}),
    ("standby", "list"): frozenset({"--json"}),
    ("fileset", "list"): frozenset({"--json"}),
    ("snapshot", "list"): frozenset({"--json"}),
    ("snapshot", "create"): frozenset({"--exclude="}),
}
"""Commands, and the options of each; those with a value end in ``=``, and are given in one word. The first operand of
each is the store."""


def permitted(arguments: Sequence[str], path: str) -> list[str]:
    """The command line to be run instead of ``arguments``: the same, on the store at ``path`` whatever a link says.

    Raises ``NotPermitted``.
    """
    words = next((words for words in ALLOWED if tuple(arguments[: len(words)]) == words), None)
    if words is None:
        known = ", ".join(" ".join(each) for each in ALLOWED)
        raise NotPermitted(f"members of the socket's group may run only: {known}")
    options, operands = _divided(arguments[len(words) :])
    for each in options:
        name, equals, _ = each.partition("=")
        if name + equals not in ALLOWED[words]:
            raise NotPermitted(f"members of the socket's group may not give '{' '.join(words)}' the option {each}")
    if not operands or os.path.realpath(operands[0]) != os.path.realpath(path):
        raise NotPermitted(f"members of the socket's group may name no other store than {path}")
    return [*words, *options, "--", path, *operands[1:]]


def _divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Options and operands, to which all belongs that follows ``--``."""
    before, after = list(words), []
    if "--" in before:
        at = before.index("--")
        before, after = before[:at], before[at + 1 :]
    return [each for each in before if each.startswith("-")], [
        *(each for each in before if not each.startswith("-")),
        *after,
    ]
