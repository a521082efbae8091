"""What users write becomes a value, or one error that says what would be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idemfs.cli.failures import UsageError
from idemfs.cli.operands import Target, parse_size, parse_target
from idemfs.cli.render import format_size


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("/srv/a", Target("/srv/a", None)),
        ("a", Target("a", None)),
        ("/srv/a@monday", Target("/srv/a", "monday")),
        ("/srv/a/@monday", Target("/srv/a/", "monday")),
        ("/srv/me@home/a", Target("/srv/me@home/a", None)),
        ("/srv/me@home/", Target("/srv/me@home/", None)),
        ("/srv/me@home/@monday", Target("/srv/me@home/", "monday")),
        ("me@home@monday", Target("me@home", "monday")),
        ("./a@monday", Target("./a", "monday")),
        ("a@", None),
        ("@monday", None),
        ("@", None),
        ("", None),
    ],
)
def test_target(text: str, target: Target | None) -> None:
    if target is None:
        with pytest.raises(UsageError, match="STORE@SNAPSHOT"):
            parse_target(text)
    else:
        assert parse_target(text) == target


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("128KiB", 131072),
        ("128 kib", 131072),
        ("1.5 GiB", 3 << 29),
        ("4k", 4096),
        ("4M", 4 << 20),
        ("1 GB", 10**9),
        ("1kB", 1000),
        (" 7 B ", 7),
        (".5KiB", 512),
        ("0.0001 KiB", 0),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "KiB", "-1", "1e3", "1.2.3", "1 Ki B", "0x10", "٣", "1 parsec", ".", "9" * 50, "1_000", "1kk"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size; write for example 131072, 128KiB"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=1 << 66))
def test_a_formatted_size_reads_back_within_its_rounding(size: int) -> None:
    text = format_size(size)
    assert abs(parse_size(text) - size) <= size * 0.051
    assert text == f"{size} B" if size < 1000 else len(text.split()[0]) <= 6


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_a_usage_error(text: str) -> None:
    for parse in (parse_target, parse_size):
        try:
            parse(text)
        except UsageError as error:
            assert "write " in str(error)
