"""How far a copy is: a bar on a terminal, otherwise failures and warnings alone.

Threads: one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from idemfs.cli.failures import Refused, message
from idemfs.cli.names import without_controls
from idemfs.cli.render import format_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.progress import Progress, TaskID

    from idemfs.vfs.copying import Outcome


class CopyProgress:
    """A ``Watcher`` of ``vfs.copying``. ``measure``: names and bytes to come; it is asked only for a terminal."""

    def __init__(self, what: str, measure: Callable[[], tuple[int, int]]) -> None:
        self._what = what
        self._measure = measure
        self._bar: Progress | None = None
        self._files = self._size = 0
        self._task: TaskID | None = None

    def __enter__(self) -> CopyProgress:
        if sys.stdout.isatty():
            from rich import progress

            files, size = self._measure()
            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.TextColumn("{task.fields[files]:,} of {task.fields[files_all]:,} files"),
                progress.DownloadColumn(binary_units=True),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(),
                transient=True,
            )
            self._bar.start()
            # A tree of empty files has no bytes to count by.
            self._task = self._bar.add_task(self._what, total=size + files, files=0, files_all=files)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advanced(self, files: int, size: int) -> None:
        if self._bar is not None and self._task is not None:
            self._files += files
            self._size += size
            self._bar.update(self._task, completed=self._size + self._files, files=self._files)

    def failed(self, path: bytes, error: OSError) -> None:
        if error.filename is None:
            error.filename = path
        line = message(error)
        if line is not None:
            print(line, file=sys.stderr)

    def warned(self, text: str) -> None:
        print(f"idemfs: {without_controls(text)}", file=sys.stderr)


def report(outcome: Outcome) -> None:
    """Say what a copy did. Raises ``Refused`` when a part of it failed."""
    parts = [f"{outcome.file_count:,} copied ({format_size(outcome.byte_count)})"]
    if outcome.kept_count:
        parts.append(f"{outcome.kept_count:,} as they were")
    if outcome.removed_count:
        parts.append(f"{outcome.removed_count:,} removed")
    print(", ".join(parts))
    if outcome.failed_count:
        raise Refused(f"{outcome.failed_count:,} could not be copied; the rest was")
