"""``idemfs failback STORE``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_dry_run, add_store, add_yes


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_dry_run(parser)
    add_yes(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.plans import perform
    from idemfs.failover import decisions

    perform(
        options,
        lambda stage: decisions.failback(*stage.facts()),
        lambda plan: f"Make {plan.target} a standby of {plan.source}?",
    )
