"""One line an event, with the store and link that the thread works on."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from idemfs.node.log import about, configure

log = logging.getLogger("idemfs.node")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    logger = logging.getLogger("idemfs")
    before = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before[0], before[1], before[2]


def test_json() -> None:
    out = io.StringIO()
    configure("json", out)
    log.info("plain")
    with about(store="data"):
        with about(link="https://b/data"):
            log.warning("%d bytes", 3)
        try:
            raise ValueError("a\nb")
        except ValueError:
            log.exception("bad")
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(row["level"], row["what"]) for row in rows] == [
        ("info", "plain"),
        ("warning", "3 bytes"),
        ("error", "bad"),
    ]
    assert [(row.get("store"), row.get("link")) for row in rows] == [
        (None, None),
        ("data", "https://b/data"),
        ("data", None),
    ]
    assert "ValueError: a\nb" in rows[2]["error"] and rows[0]["time"].endswith("Z")


def test_text_is_one_line_whatever_is_said() -> None:
    out = io.StringIO()
    configure("text", out)
    with about(store="data"):
        try:
            raise ValueError("a\nb")
        except ValueError:
            log.exception("took\nsnapshot")
    line = out.getvalue()
    assert line.count("\n") == 1 and line.endswith("\n")
    assert " error took\\x0asnapshot store=data error=" in line and "ValueError: a\\nb" in line


def test_another_kind_takes_the_place_of_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("text", first)
    configure("json", second)
    log.info("once")
    assert first.getvalue() == "" and json.loads(second.getvalue())["what"] == "once"
