"""Claims: one command at a time, and work in the background only while no command waits."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from idemfs.errors import RoleError
from idemfs.store.claim import Claim


def test_a_command_waits_for_the_one_before_and_then_says_so() -> None:
    claim = Claim()
    claim.take()
    with pytest.raises(RoleError, match="another command"):
        claim.take(0.01)
    claim.release()
    claim.take(0.01)


def test_what_a_command_ends_cannot_begin_again_before_the_command_has_its_turn() -> None:
    claim = Claim()
    with ExitStack() as held:
        assert held.enter_context(claim.background())

        def end_others() -> None:
            held.close()
            with claim.background() as is_free:
                assert not is_free

        claim.take(0.01, end_others)
        claim.release()
    with claim.background() as is_free:
        assert is_free


def test_a_command_that_cannot_end_the_others_leaves_the_claim_to_them() -> None:
    claim = Claim()

    def end_others() -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        claim.take(0.01, end_others)
    assert not claim.is_wanted
    with claim.background() as is_free:
        assert is_free
