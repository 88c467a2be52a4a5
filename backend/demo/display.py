"""What the demo shows while it runs: live on a terminal, as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table

LINE_EVERY_SECONDS = 5.0
_REFRESHES_PER_SECOND = 4


class Display:
    """Steps one after the other, then figures that change, then whatever is printed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._step: tuple[str, float] | None = None
        self._line_due = 0.0

    def step(self, text: str) -> None:
        """The step before is done, and this one begins."""
        self._finish_step()
        self._step = (text, time.monotonic())
        if self.console.is_terminal:
            self._show(Spinner("dots", f"{text} …"))
        else:
            self.console.print(f"{text} …", highlight=False)

    def steps_done(self) -> None:
        """The last step is done."""
        self._finish_step()

    def say(self, text: str) -> None:
        """A line that stays, above what is live."""
        self.console.print(f"[yellow]![/yellow] {text}", highlight=False)

    def progress(
        self,
        *,
        seconds: float,
        act: str,
        figures: Mapping[str, str],
        bars: Mapping[str, tuple[float, float, str]],
    ) -> None:
        """It runs for so many `seconds`, and these are the figures now; `bars` are done, total and a remark."""
        if self.console.is_terminal:
            table = Table.grid(padding=(0, 2))
            table.add_row(f"[dim]{seconds:.0f} s[/dim]", act)
            for name, (part, whole, remark) in bars.items():
                table.add_row(f"[dim]{name}[/dim]", _bar(part, whole, remark))
            for name, value in figures.items():
                table.add_row(f"[dim]{name}[/dim]", value)
            self._show(table)
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + LINE_EVERY_SECONDS
            moved = {name: _percent(part, whole) for name, (part, whole, _) in bars.items()}
            told = "; ".join(f"{name}: {value}" for name, value in (moved | dict(figures)).items() if value)
            self.console.print(f"{seconds:4.0f} s  {told}", highlight=False)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Leaves the terminal as it should be, however this ends."""
        try:
            yield
        finally:
            self._hide()

    def _finish_step(self) -> None:
        self._hide()
        if self._step is not None:
            text, began = self._step
            self._step = None
            took = time.monotonic() - began
            self.console.print(f"[green]✓[/green] {text} [dim]{took:.1f} s[/dim]", highlight=False)

    def _show(self, what: RenderableType) -> None:
        if self._live is None:
            self._live = Live(
                what, console=self.console, refresh_per_second=_REFRESHES_PER_SECOND, transient=True
            )
            self._live.start()
        else:
            self._live.update(what)

    def _hide(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def _bar(part: float, whole: float, remark: str) -> Table:
    line = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(whole, 1.0), completed=min(part, whole), width=40)
    line.add_row(bar, f"{_percent(part, whole)}  {part:,.0f} of {whole:,.0f} rows", f"[dim]{remark}[/dim]")
    return line


def _percent(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "-"
