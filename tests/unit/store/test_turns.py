"""Turns are short while something is committed, and as before afterwards, also when commits overlap."""

from __future__ import annotations

import sys

from idemfs.store import turns


def test_turns_are_put_back_when_the_last_commit_ends() -> None:
    before = sys.getswitchinterval()
    with turns.short():
        with turns.short():
            assert sys.getswitchinterval() < before
        assert sys.getswitchinterval() < before
    assert sys.getswitchinterval() == before
