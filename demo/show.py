"""What the demo prints: a heading for each step, a bar for what takes long, one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

Advance = Callable[[int], object]


class Show:
    """Console output. Rows of the table are added while a step runs."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)
        self._step = 0
        self._table = Table(title="The life of a store and its standby", title_justify="left", show_lines=True)
        self._table.add_column("step", no_wrap=True)
        self._table.add_column("what moved")
        for name in ("bytes", "seconds"):
            self._table.add_column(name, justify="right", no_wrap=True)
        self._table.add_column("verified")

    def step(self, text: str) -> None:
        self._step += 1
        self._console.print(f"[bold]{self._step}[/bold]  {text}", soft_wrap=True)

    def say(self, text: str) -> None:
        self._console.print(f"   {text}", markup=False, soft_wrap=True)

    @contextmanager
    def bar(self, text: str, total: int) -> Iterator[Advance]:
        """A progress bar of bytes; what it yields is told how many more are done."""
        columns = (TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(text, total=total)
            yield lambda count: bar.advance(task, count)

    def row(self, moved: str, size: int, seconds: float, verified: str) -> None:
        """What the present step amounts to."""
        self._table.add_row(str(self._step), moved, f"{size:,}", f"{seconds:.2f}", verified)

    def end(self) -> None:
        self._console.print()
        self._console.print(self._table)

    def failed(self, text: str) -> None:
        self._console.print(f"failed: {text}", style="bold red", markup=False)
