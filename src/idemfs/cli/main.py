"""``idemfs``: choose the command, run it, report.

The module of the chosen command is the only one that is imported, and the top-level help
comes from the table without argparse: most of a short command's time is the start of Python.
"""

from __future__ import annotations

import os
import sys

from idemfs.cli import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from typing import Protocol

    class Command(Protocol):
        """What each module of a command holds."""

        def arguments(self, parser: ArgumentParser) -> None: ...

        def run(self, options: Namespace) -> int | None: ...


HELP = ("-h", "--help", "help")


def entry() -> int:
    """The whole process; what it returns is the exit status."""
    for stream in (sys.stdin, sys.stdout):
        # Names are bytes; what is not UTF-8 comes in and goes out unchanged.
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")
    status = main(sys.argv[1:])
    if status and sys.stdout is not None:
        _drop_unwritten()
    return status


def main(arguments: list[str], *, forwards: bool = True) -> int:
    """Run one command line and return its exit status; errors are reported on standard error.

    ``forwards``: a store that another process has mounted is used through that process.
    """
    try:
        status = _dispatch(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        from idemfs.cli import failures

        if forwards and arguments and arguments[0] not in ("mount", "serve"):
            forwarded = _forwarded(error, arguments)
            if forwarded is not None:
                return forwarded
        failed = failures.exit_status(error)
        if failed is None and isinstance(error.__context__, KeyboardInterrupt):
            # argparse, interrupted, fails over its own clearing up.
            error = error.__context__
            failed = failures.exit_status(error)
        if failed is None:
            raise
        line = failures.message(error)
        if line is not None:
            print(line, file=sys.stderr)
        return failed


def _forwarded(error: BaseException, arguments: list[str]) -> int | None:
    """The status of the command carried out by the owner of the store, which the error says cannot be opened here.

    None: it is another error, or nobody does so. As the store was not opened, nothing was done before.
    """
    from idemfs.errors import StoreInUse

    if isinstance(error, StoreInUse):
        path = error.path
    elif isinstance(error, PermissionError) and isinstance(error.filename, str):
        # Its owner may let somebody run commands who may not read its files. That is the store which was named, and
        # no other: whoever listens is given our standard streams.
        path = next((each for each in arguments[1:] if os.path.isdir(each)), "")
        if not path or not os.path.abspath(error.filename).startswith(os.path.join(os.path.abspath(path), "")):
            return None
    else:
        return None
    from idemfs.node.local_socket import forward

    return forward(path, arguments)


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        print(commands.help_all(), end="", file=sys.stderr)
        return 2
    first = arguments[0]
    if first in HELP:
        print(commands.help_all(), end="")
        return 0
    if first == "--version":
        from importlib.metadata import version

        print("idemfs", version("idemfs"))
        return 0
    if first in commands.GROUPS:
        if len(arguments) == 1:
            print(commands.help_group(first), end="", file=sys.stderr)
            return 2
        if arguments[1] in HELP:
            print(commands.help_group(first), end="")
            return 0
    for words in ((first,), tuple(arguments[:2])):
        if words in commands.COMMANDS:
            return _run(words, arguments[len(words) :])
    return _unknown(tuple(arguments[: 2 if first in commands.GROUPS else 1]))


def _run(words: tuple[str, ...], rest: list[str]) -> int:
    from idemfs.cli.parser import make_parser

    name = commands.module_name(words)
    # As importlib does, which itself takes time to import.
    __import__(name)
    module: Command = sys.modules[name]
    parser = make_parser(commands.phrase(words), commands.COMMANDS[words])
    module.arguments(parser)
    try:
        # Options may stand between operands, of which some may be left out.
        options = parser.parse_intermixed_args(rest)
    except SystemExit as end:
        # argparse ends the process after --help (0) and after wrong usage (2).
        return end.code if isinstance(end.code, int) else 2
    return module.run(options) or 0


def _unknown(words: tuple[str, ...]) -> int:
    from idemfs.cli.failures import UsageError

    meant = commands.did_you_mean(words)
    hint = f"did you mean '{meant}'?" if meant else "'idemfs --help' lists them"
    raise UsageError(f"no command '{commands.phrase(words)}'; {hint}")


def _drop_unwritten() -> None:
    """After a failure, what standard output does not take any more must not become a second failure at the end."""
    import os

    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
