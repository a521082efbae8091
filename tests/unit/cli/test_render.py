"""Tables, JSON, sizes and times as they are printed, and the question before a loss."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from idemfs.cli.failures import Refused
from idemfs.cli.render import Column, confirm, format_size, format_time_ns, listing, show_size, table

if TYPE_CHECKING:
    from idemfs.cli.render import Row

COLUMNS = (Column("name"), Column("owned_bytes", "OWNED", show_size, right=True), Column("held"))
ROWS: tuple[Row, ...] = (
    {"name": "monday", "owned_bytes": 131072, "held": True, "guid": "00ff"},
    {"name": "日本", "owned_bytes": 5, "held": None, "guid": "01ff"},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_are_aligned_wide_characters_too() -> None:
    assert table(ROWS, COLUMNS) == [
        "NAME      OWNED  HELD",
        "monday  128 KiB  yes",
        "日本        5 B  -",
    ]


def test_no_rows_still_show_the_headings() -> None:
    assert table([], COLUMNS) == ["NAME  OWNED  HELD"]


def test_json_holds_all_that_the_rows_hold() -> None:
    out = io.StringIO()
    listing(iter(ROWS), COLUMNS, json=True, out=out)
    assert json.loads(out.getvalue()) == list(ROWS)


def test_json_keeps_a_name_that_is_not_utf_8() -> None:
    out = io.StringIO()
    listing([{"name": "\udcff"}], COLUMNS, json=True, out=out)
    assert out.getvalue().isascii() and json.loads(out.getvalue()) == [{"name": "\udcff"}]


def test_a_terminal_gets_escapes_and_a_file_those_of_controls_alone() -> None:
    terminal, file = Terminal(), io.StringIO()
    for out in (terminal, file):
        listing([{"name": "a\x1bb\nforged\udcff\\"}], COLUMNS[:1], json=False, out=out)
    assert terminal.getvalue() == "NAME\na\\x1bb\\x0aforged\\xff\\\\\n"
    assert file.getvalue() == "NAME\na\\x1bb\\x0aforged\udcff\\\n"


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (131072, "128 KiB"),
        ((1 << 20) - 1, "1 MiB"),
        ((1 << 20) - 60, "1023.9 KiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 70, "1024 EiB"),
        (-1536, "-1.5 KiB"),
    ],
)
def test_size(size: int, text: str) -> None:
    assert format_size(size) == text


def test_time() -> None:
    assert format_time_ns(0) == "1970-01-01T00:00:00Z"
    assert format_time_ns(1_767_225_599_999_999_999) == "2025-12-31T23:59:59Z"
    assert format_time_ns(-1) == "1969-12-31T23:59:59Z"


def test_yes_is_not_asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    confirm("Delete?", yes=True)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_nobody_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(Refused, match=r"^Delete\? Nobody is here to be asked: repeat with --yes$"):
        confirm("Delete?", yes=False)


@pytest.mark.parametrize("answer", ["y\n", "YES\n", " y \n"])
def test_agreed(answer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    confirm("Delete 'a\x1b'?", yes=False)
    assert capsys.readouterr() == ("", "Delete 'a\\x1b'? [y/N] ")


@pytest.mark.parametrize("answer", ["n\n", "\n", "", "yess\n"])
def test_not_agreed(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    with pytest.raises(Refused, match="nothing was done"):
        confirm("Delete?", yes=False)
