"""The parser of one command's arguments, and the arguments that several commands have.

A wrong argument is reported in one line, as every other failure is.
"""

from __future__ import annotations

import argparse

from idemfs.cli.commands import EXIT_STATUS_HELP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# argparse asks for a translation of each of its texts, which imports and looks for files. There is none to find.
setattr(argparse, "_", str)  # noqa: B010

_CONFIG = "/etc/idemfs.toml"

HELP_WIDTH = 100
"""A fixed width: asking the terminal for its own imports ten more modules."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=HELP_WIDTH)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        from idemfs.cli.failures import UsageError

        raise UsageError(f"{message}; see '{self.prog} --help'")


def make_parser(phrase: str, what: str) -> argparse.ArgumentParser:
    """A parser for the command of these words; its options cannot be shortened, so that new ones break no script."""
    return _Parser(
        prog=f"idemfs {phrase}",
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=EXIT_STATUS_HELP,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def add_store(parser: argparse.ArgumentParser) -> None:
    """``options.store: str``."""
    parser.add_argument("store", metavar="STORE", help="path of the store")


def add_target(parser: argparse.ArgumentParser) -> None:
    """``options.target: operands.Target``."""
    from idemfs.cli.operands import parse_target

    parser.add_argument("target", metavar="STORE[@SNAPSHOT]", type=parse_target, help="a store, or a snapshot of it")


def add_config(parser: argparse.ArgumentParser) -> None:
    """``options.config: str``."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        default=_CONFIG,
        help=f"the configuration, unless it is {_CONFIG}; docs/SERVE.md tells its keys",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """``options.json: bool``."""
    parser.add_argument("--json", action="store_true", help="write an array of objects instead of a table")


def add_dry_run(parser: argparse.ArgumentParser) -> None:
    """``options.dry_run: bool``."""
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and change nothing")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """``options.yes: bool``, for ``render.confirm``."""
    parser.add_argument("--yes", action="store_true", help="do not ask")
