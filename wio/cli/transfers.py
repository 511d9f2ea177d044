"""``wio get`` and ``wio put``: files between this machine and a workspace, without any other program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from protocol.errors import BadInput
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import count, safe, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from wio.transfer import One, Report

_PANEL: Final = "Files"
_SHOWN: Final = 10
Resume = Annotated[bool, typer.Option("--resume", help="Leave out what is there already: of the same size, and not older.")]


class Done(msgspec.Struct, frozen=True):
    """What ``wio get --json`` and ``wio put --json`` answer. ``failed``: file and reason."""

    path: str
    files: int
    bytes: int
    skipped: int
    failed: tuple[tuple[str, str], ...]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (get, put):
        app.command(rich_help_panel=_PANEL)(command)


def get(
    path: Annotated[str, typer.Argument(help="A file, folder or workspace.", show_default=False)],
    to: Annotated[Path, typer.Argument(help="Where to put it; a folder, or a file's new name.")] = Path(),
    *,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Fetch a file, or a folder with all in it. For more, there is wio mc."""
    from wio.transfer import Transfer  # noqa: PLC0415  - brings botocore, which help does without

    with here.session() as session:
        transfer = Transfer(session, path, read_only=True)
        files = transfer.there()
        if not transfer.whole(files) and not (to.is_dir() or str(to).endswith("/")):
            target = [replace(one, here=to) for one in files]
        else:
            target = [replace(one, here=to / one.here) for one in files]

        def there(one: One) -> bool:
            if not resume or not one.here.is_file():
                return False
            stat = one.here.stat()
            return stat.st_size == one.size and stat.st_mtime >= one.changed

        with _bar(f"get {path}", sum(one.size for one in target)) as told:
            report = transfer.get(target, told=told, skip=there)
    _show(path, report, "fetched", json=json)


def put(
    sources: Annotated[list[str], typer.Argument(metavar="FILE… PATH", help="Files or folders, then where to.")],
    *,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Send files, or folders with all in them, into a workspace. For more, there is wio mc."""
    from wio.transfer import Transfer  # noqa: PLC0415  - brings botocore, which help does without

    if len(sources) < 2:  # noqa: PLR2004  - something, and where to
        raise BadInput("wio put needs files and, last, where they go.", todo="wio put results.csv scans/results/")
    *local, path = sources
    with here.session() as session:
        transfer = Transfer(session, path, read_only=False)
        files = transfer.sent(Path(one) for one in local)
        known = transfer.sizes() if resume else {}

        def there(one: One) -> bool:
            large, changed = known.get(one.key, (-1, 0.0))
            return large == one.size and changed >= one.changed

        with _bar(f"put {path}", sum(one.size for one in files)) as told:
            report = transfer.put(files, told=told, skip=there)
    _show(path, report, "sent", json=json)


def _show(path: str, report: Report, did: str, *, json: bool) -> None:
    failed = tuple((name, error.message) for name, error in report.failed)
    if json:
        output.value(Done(path, report.files, report.bytes, report.skipped, failed))
    else:
        left = f"; {report.skipped:,} there already" if report.skipped else ""
        output.line(f"{count(report.files, 'file')} {did}, {size(report.bytes)}{left}.")
        for name, why in failed[:_SHOWN]:
            output.note(f"wio: {safe(name)}: {safe(why)}")
        if len(failed) > _SHOWN:
            output.note(f"wio: and {len(failed) - _SHOWN:,} more; --json has them all.")
    if report.failed:
        raise typer.Exit(max(error.exit_code for _, error in report.failed) if len(report.failed) == 1 else 1)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415  - rich takes a tenth of a second; pipes do without
    from rich.markup import escape  # noqa: PLC0415
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(file=sys.stderr, highlight=False)) as shown:
        task = shown.add_task(escape(safe(what)), total=total)
        yield lambda more: shown.advance(task, more)
