"""``idemfs failover STORE``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_dry_run, add_store, add_yes


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from functools import partial

    from idemfs.cli.plans import perform
    from idemfs.failover import decisions
    from idemfs.node.peer import end_sessions

    perform(
        options,
        lambda stage: decisions.failover(*stage.facts()),
        lambda plan: (
            f"Make {plan.target} primary, as it was at {plan.common.name if plan.common else 'its last write'}?"
        ),
        # What a lost primary began here, or a link of ours began there, ends now, and not when its silence is noticed.
        end_others=partial(end_sessions, options.store),
    )
