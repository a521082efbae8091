"""``idemfs replicate STORE``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_dry_run, add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)
    add_dry_run(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.plans import perform
    from idemfs.failover import decisions

    perform(options, lambda stage: decisions.replicate(*stage.facts()))
