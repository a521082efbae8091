"""What commands print: tables for people, JSON for programs, sizes, times; and the question before a loss.

No colours and no borders: the output is for ``grep`` too. JSON writes a name that is not UTF-8
with ``\\udcXX`` for each odd byte, which ``json.loads`` and ``os.fsencode`` turn back into it.
"""

from __future__ import annotations

import sys

from idemfs.units import SIZE_UNITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TextIO, TypeAlias

    Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None
    Row: TypeAlias = Mapping[str, Json]


class Column:
    """One column of a table: the key in the row, the heading, and how a value is shown."""

    __slots__ = ("heading", "key", "right", "show")

    def __init__(
        self, key: str, heading: str | None = None, show: Callable[[Json], str] | None = None, right: bool = False
    ) -> None:
        self.key = key
        self.heading = heading if heading is not None else key.upper().replace("_", " ")
        self.show = show or show_value
        self.right = right


def listing(rows: Iterable[Row], columns: Sequence[Column], *, json: bool, out: TextIO | None = None) -> None:
    """Print rows: as a table of these columns, or as one JSON array with everything that the rows hold."""
    stream = sys.stdout if out is None else out
    if json:
        from json import dumps

        stream.write(dumps(list(rows), indent=2) + "\n")
        return
    for line in table(rows, columns, terminal=stream.isatty()):
        stream.write(line + "\n")


def table(rows: Iterable[Row], columns: Sequence[Column], *, terminal: bool = False) -> list[str]:
    """Aligned lines, headings first."""
    cells = [[column.heading for column in columns]]
    cells += [[_cell(column.show(row.get(column.key)), terminal) for column in columns] for row in rows]
    widths = [max(display_width(line[i]) for line in cells) for i in range(len(columns))]
    return ["  ".join(map(_pad, line, widths, [column.right for column in columns])).rstrip(" ") for line in cells]


def _cell(text: str, terminal: bool) -> str:
    if not terminal and text.isprintable():
        return text
    from idemfs.cli.names import in_one_row, printable

    return printable(text) if terminal else in_one_row(text)


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if right else text + space


def display_width(text: str) -> int:
    """Columns on a terminal: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)


def show_value(value: Json) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def show_size(value: Json) -> str:
    return format_size(value) if isinstance(value, int) else show_value(value)


def format_size(size: int) -> str:
    """Bytes for people, in steps of 1024, with one decimal where it says something: ``128 KiB``, ``1.5 GiB``."""
    power = 0
    while power + 1 < len(SIZE_UNITS) and abs(size) * 20 >= (1024 * 20 - 1) * 1024**power:
        # What would round to 1024.0 of this unit is 1 of the next.
        power += 1
    if power == 0:
        return f"{size} B"
    return f"{size / 1024**power:.1f}".removesuffix(".0") + f" {SIZE_UNITS[power]}"


def format_time_ns(time_ns: int) -> str:
    """UTC as ISO 8601 in whole seconds: ``2026-01-31T23:59:59Z``."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time_ns // 1_000_000_000))


def confirm(question: str, *, yes: bool) -> None:
    """Return if the user agrees, or gave ``--yes``; otherwise raise ``Refused``. Without a terminal nobody agrees."""
    if yes:
        return
    from idemfs.cli.failures import Refused
    from idemfs.cli.names import without_controls

    if not sys.stdin.isatty():
        raise Refused(f"{question} Nobody is here to be asked: repeat with --yes")
    sys.stderr.write(f"{without_controls(question)} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was done")
