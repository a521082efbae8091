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
        self._table = Table(title="The life of a store", title_justify="left")
        for name in ("step", "what moved"):
            self._table.add_column(name)
        for name in ("bytes", "seconds"):
            self._table.add_column(name, justify="right")
        self._table.add_column("verified")

    def step(self, number: int, text: str) -> None:
        self._console.print(f"[bold]{number}[/bold]  {text}")

    def say(self, text: str) -> None:
        self._console.print(f"   {text}")

    @contextmanager
    def bar(self, text: str, total: int | None = None) -> Iterator[Advance]:
        """A progress bar of bytes; what it yields is told how many more are done."""
        columns = (TextColumn("   {task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(text, total=total)
            yield lambda count: bar.advance(task, count)

    def row(self, step: str, moved: str, size: int | None, seconds: float, verified: str) -> None:
        self._table.add_row(step, moved, "" if size is None else f"{size:,}", f"{seconds:.2f}", verified)

    def end(self) -> None:
        self._console.print()
        self._console.print(self._table)

    def failed(self, text: str) -> None:
        self._console.print(f"[bold red]failed:[/bold red] {text}", markup=True)
