"""``idemfs automatic resume STORE``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.guarded import guard_of

    guard_of(options.store).pause(False)
    print(f"{options.store}: stores of its line take over by themselves again, where they are configured to")
