"""Where a command's answer goes: to stdout as text that fits the terminal, or as JSON with ``--json``; the rest to stderr.

JSON is the API's own form (``protocol.api``), one document per command, and stays as it is. Text that others chose reaches
rich as plain text, never as markup, and without anything a terminal would act on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec
import typer

from protocol.errors import WioError
from wio.cli.words import safe

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]
_WIDE: Final = 100_000
"""Columns where nobody looks: what is piped is never folded."""


class Column(NamedTuple):
    """A column of a table: ``right`` for numbers, ``fold`` for what may take several lines on a narrow terminal."""

    title: str
    right: bool = False
    fold: bool = False


def value(answer: Any) -> None:
    """Print an answer as JSON."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode() + "\n")


def line(text: str = "") -> None:
    """Print one line of an answer."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """Say something beside the answer."""
    sys.stderr.write(text + "\n")


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, head: bool = True) -> None:
    """Print a table without lines around it; on a terminal it fits, elsewhere no cell is folded or cut."""
    from rich.console import Console  # noqa: PLC0415  - rich takes a tenth of a second; JSON does without
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=head, header_style="dim")
    for column in columns:
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
        )
    for row in rows:
        drawn.add_row(*(Text(safe(cell)) for cell in row))
    with console.capture() as captured:
        console.print(drawn)
    sys.stdout.write("".join(text.rstrip() + "\n" for text in captured.get().splitlines()))


def fields(rows: Sequence[tuple[str, str]]) -> None:
    """Print one thing as a list of names and values; empty values are left out."""
    table([Column("", right=False), Column("", fold=True)], [row for row in rows if row[1]], head=False)


def failure(error: WioError, *, as_json: bool) -> None:
    """Say what went wrong and what to do, on stderr: two lines, or the error's JSON form."""
    if as_json:
        sys.stderr.write(msgspec.json.encode(error.problem).decode() + "\n")
        return
    note(f"wio: {safe(error.message)}")
    column = "" if error.column is None else f"column {error.column}. "
    if column or error.todo:
        note(f"     {column}{safe(error.todo)}".rstrip())
