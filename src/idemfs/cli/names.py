"""Names on their way to a person.

Names are bytes. As text they carry what is not UTF-8 as surrogates (``os.fsdecode``), and standard
output turns these back into the same bytes. On a terminal, where a name could move the cursor or
pass for another one, everything unprintable is escaped. In a file or pipe control characters are:
there a name could pass for further rows, and whoever shows it later may be on a terminal. Only
``ls``, whose lines are names and nothing else, writes them unchanged there; JSON has them always.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO


_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}
"""Control characters, and the two others that end a line."""


def show_name(name: str | bytes, out: TextIO | None = None) -> str:
    """The name as it goes to ``out`` among other text: printable on a terminal, without controls in a file or pipe."""
    stream = sys.stdout if out is None else out
    return printable(name) if stream.isatty() else in_one_row(os.fsdecode(name))


def exact_name(name: str | bytes, out: TextIO | None = None) -> str:
    """The name as it goes to ``out`` alone on its line: printable on a terminal, unchanged in a file or pipe."""
    stream = sys.stdout if out is None else out
    return printable(name) if stream.isatty() else os.fsdecode(name)


def in_one_row(text: str) -> str:
    """Control characters as ``\\x1b``; all else stays, also what is not UTF-8, and each backslash."""
    return text if text.isprintable() else text.translate(_CONTROLS)


def printable(name: str | bytes) -> str:
    """The name in printable characters, each other one as ``\\x1b`` or ``\\u200e``; a backslash is doubled."""
    return without_controls(os.fsdecode(name).replace("\\", "\\\\"))


def without_controls(text: str) -> str:
    """A message that may quote names, in one line of printable characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:
        # What os.fsdecode made of a byte that is not UTF-8.
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
