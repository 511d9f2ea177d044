"""Where a command's answer goes: to stdout as text that fits the terminal, or as JSON with ``--json``; the rest to stderr.

JSON is the API's own form (``protocol.api``), one document per command, and stays as it is. Text that others chose reaches
rich as plain text, never as markup, and without anything a terminal would act on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import typer

from protocol.errors import WioError
from wio.cli.words import safe

Json = Annotated[bool, typer.Option("--json", help="Answer as JSON.")]


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


def flush() -> None:
    """Have whoever reads the answer see what there is of it, before a command goes on."""
    sys.stdout.flush()


def note(text: str) -> None:
    """Say something beside the answer."""
    sys.stderr.write(text + "\n")


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, head: bool = True) -> None:
    """Print a table without lines around it; on a terminal it fits, elsewhere no cell is folded or cut."""
    cells = [[safe(cell) for cell in row] for row in rows]
    drawn = _fitted(columns, cells, head=head) if sys.stdout.isatty() else _wide(columns, cells, head=head)
    sys.stdout.write("".join(text.rstrip() + "\n" for text in drawn))


def _wide(columns: Sequence[Column], rows: list[list[str]], *, head: bool) -> list[str]:
    """Return the lines of a table that nobody looks at: as wide as it has to be."""
    from rich.cells import cell_len  # noqa: PLC0415  - of rich only this: the rest takes a tenth of a second

    lines = [[column.title for column in columns], *rows] if head else rows
    widths = [max((cell_len(line[number]) for line in lines), default=0) for number in range(len(columns))]

    def padded(column: Column, cell: str, width: int) -> str:
        blank = " " * (width - cell_len(cell))
        return blank + cell if column.right else cell + blank

    return ["  ".join(padded(*one) for one in zip(columns, line, widths, strict=True)) for line in lines]


def _fitted(columns: Sequence[Column], rows: list[list[str]], *, head: bool) -> list[str]:
    """Return the lines of a table that fits the terminal."""
    from rich.console import Console  # noqa: PLC0415  - rich takes a tenth of a second; pipes do without
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(file=sys.stdout, highlight=False)
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=head, header_style="dim")
    for column in columns:
        drawn.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=not column.fold,
            overflow="fold" if column.fold else "ellipsis",
        )
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().splitlines()


def fields(rows: Sequence[tuple[str, str]]) -> None:
    """Print one thing as a list of names and values; empty values are left out."""
    table([Column("", right=False), Column("", fold=True)], [row for row in rows if row[1]], head=False)


_MARKS = {"good": ("ok   ", "32"), "remark": ("note ", "33"), "wrong": ("WRONG", "31")}


def mark(verdict: str) -> str:
    """Return how a finding stands, in colour where somebody sees it and wants colour."""
    word, colour = _MARKS[verdict]
    return f"\x1b[{colour}m{word}\x1b[0m" if coloured() else word


def coloured() -> bool:
    """Say whether to use colour: on a terminal that has it, unless NO_COLOR is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def failure(error: WioError, *, as_json: bool) -> None:
    """Say what went wrong and what to do, on stderr: two lines, or the error's JSON form."""
    if as_json:
        sys.stderr.write(msgspec.json.encode(error.problem).decode() + "\n")
        return
    note(f"wio: {safe(error.message)}")
    column = "" if error.column is None else f"column {error.column}. "
    if column or error.todo:
        note(f"     {column}{safe(error.todo)}".rstrip())
