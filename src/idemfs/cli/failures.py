"""What went wrong becomes an exit status and one line on standard error.

``EXIT_STATUS`` is the only place that decides a status. An error outside it is a mistake
of idemfs itself: it is not caught, and its traceback is shown.
"""

from __future__ import annotations

import os

from idemfs.cli.names import without_controls
from idemfs.errors import IdemfsError


class UsageError(IdemfsError):
    """The command line asks for something that has no meaning."""


class Refused(IdemfsError):
    """The command was understood, and is not carried out."""


EXIT_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, 130),
    (BrokenPipeError, 141),
    (UsageError, 2),
    (IdemfsError, 1),
    (OSError, 1),
)
"""The first row whose class fits decides. 130 and 141 are what a shell reports for SIGINT and SIGPIPE."""


def exit_status(error: BaseException) -> int | None:
    """The status for this error; None: not ours to catch."""
    for kind, status in EXIT_STATUS:
        if isinstance(error, kind):
            return status
    return None


def message(error: BaseException) -> str | None:
    """One line for the user; None where there is nobody to tell: whoever read our output has gone."""
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, KeyboardInterrupt):
        return "idemfs: interrupted"
    return f"idemfs: {without_controls(_what(error))}"


def _what(error: BaseException) -> str:
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error) or type(error).__name__
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    return ": ".join([" -> ".join(names), error.strerror] if names else [error.strerror])
