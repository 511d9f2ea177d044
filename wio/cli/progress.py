"""A progress bar on stderr for scans; a few plain lines where stderr is no terminal."""

from __future__ import annotations

import sys
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from protocol.api import ScanStatus
from protocol.messages import ScanState
from wio.cli.words import count, safe, size


class Bar:
    """Shows how far a scan is: what was seen in storage, then how much of it can be found."""

    def __init__(self, what: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[seen]}"),
            TimeElapsedColumn(),
            console=Console(file=sys.stderr, highlight=False),
            disable=not sys.stderr.isatty(),
        )
        self._what = escape(safe(what))
        self._task = self._progress.add_task(f"{self._what} scanning", total=None, seen="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, status: ScanStatus) -> None:
        """Draw this status."""
        seen = f"{count(status.objects, 'file')}, {size(status.bytes)}"
        if status.state is ScanState.DONE:
            found = min(status.searchable, status.objects)
            self._progress.update(
                self._task,
                description=f"{self._what} indexing",
                total=max(status.objects, 1),
                completed=found if status.objects else 1,
                seen=f"{seen}; {found:,} can be found",
            )
        else:
            self._progress.update(self._task, seen=seen)
