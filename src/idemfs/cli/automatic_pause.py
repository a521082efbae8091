"""``idemfs automatic pause STORE``: for maintenance; leases are kept all the while."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from idemfs.cli.parser import add_store


def arguments(parser: ArgumentParser) -> None:
    add_store(parser)


def run(options: Namespace) -> None:
    from idemfs.cli.guarded import guard_of

    guard_of(options.store).pause(True)
    print(f"{options.store}: no store of its line takes over, or comes back, by itself until 'idemfs automatic resume'")
