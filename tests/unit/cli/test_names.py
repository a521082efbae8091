"""Names reach a terminal without moving its cursor, and a file in one line, or without being changed."""

from __future__ import annotations

import io
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idemfs.cli.names import exact_name, printable, show_name, without_controls


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"plain name", "plain name"),
        ("käse".encode(), "käse"),
        (b"a\x1b[2J", "a\\x1b[2J"),
        (b"two\nlines", "two\\x0alines"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (b"back\\slash", "back\\\\slash"),
        ("right\u202eleft", "right\\u202eleft"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_escapes(name: str | bytes, shown: str) -> None:
    assert printable(name) == shown
    assert show_name(name, Terminal()) == shown


def test_a_file_gets_the_name_itself_where_it_stands_alone() -> None:
    assert exact_name(b"a\x1b\xff\\", io.StringIO()) == "a\x1b\udcff\\"
    assert exact_name(b"a\x1b\xff\\", Terminal()) == "a\\x1b\\xff\\\\"


def test_a_file_gets_no_controls_where_it_stands_among_others() -> None:
    assert show_name(b"a\x1b\xff\\", io.StringIO()) == "a\\x1b\udcff\\"


@given(st.binary(max_size=40))
def test_a_name_is_in_one_line_of_a_file(name: bytes) -> None:
    shown = show_name(name, io.StringIO())
    assert len(shown.splitlines()) <= 1
    if os.fsdecode(name).isprintable():
        assert shown == os.fsdecode(name)
    assert not any(unicodedata.category(char) == "Cc" for char in shown)


def test_a_message_keeps_its_backslashes() -> None:
    assert without_controls("a\\b\tc") == "a\\b\\x09c"


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_different_names_look_different_and_are_printable(one: bytes, other: bytes) -> None:
    assert printable(one).isprintable()
    assert (printable(one) == printable(other)) == (one == other)
