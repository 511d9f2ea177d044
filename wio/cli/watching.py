"""``wio watch``, and ``wio mc watch`` in mc's own form: what changes, as it changes, from the hub.

``mc watch`` itself asks the storage server to notify it, which many builds accept and then never do (4-storage). The hub
hears of every change from the node's agent, so it is asked instead.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from protocol.errors import BadInput
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import clock_time, safe, size

if TYPE_CHECKING:
    from protocol.api import FileChange
    from wio.client import Client

_PANEL: Final = "Files"
_QUERY: Final = re.compile(r'[:\s"()<>*?]')
"""What makes a single word a search and not a path."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=_PANEL)(watch)


def watch(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH|QUERY…", help="A workspace, folder or file, or a search.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Show what changes, as it changes: below a path, in what a search finds, or in all you may read. Ends with Ctrl-C.

    One word without any of : * ? " < > ( ) is a path. With --json each line is one change.
    """
    from wio.watching import Watch, matching  # noqa: PLC0415  - brings httpx, which help does without

    words = what or []
    with here.session() as session:
        if len(words) > 1 or (words and _QUERY.search(words[0])):
            seen = Watch(session.client, note=output.note)
            changes: Iterable[FileChange] = matching(session.client, " ".join(words), seen)
        else:
            changes = _each(session.client, words[0] if words else None)
        for change in changes:
            _say(msgspec.json.encode(change).decode() if json else _line(change))


def mc_watch(client: Client, options: Sequence[str], path: str) -> None:
    """Do what ``mc watch`` promises, in its form. Raises BadInput for options that mean nothing here."""
    given = _options(options)
    events = set(str(given.get("events") or "put,delete").split(","))
    if events - {"put", "delete", "get"}:
        raise BadInput("wio mc watch knows the events put and delete.", todo="Leave --events out, or give one of them.")
    if events == {"get"}:
        raise BadInput("wio mc watch cannot tell of reading.", todo="wio accesses PATH says who read, a minute later.")
    prefix, suffix = str(given.get("prefix") or ""), str(given.get("suffix") or "")
    for change in _each(client, path):
        inside = change.path.split("/", 2)[-1]
        if ("delete" if change.gone else "put") in events and inside.startswith(prefix) and change.path.endswith(suffix):
            _say(_as_mc_json(change) if given.get("json") else _as_mc(change))


_VALUES: Final = frozenset({"events", "prefix", "suffix"})
_FLAGS: Final = frozenset({"recursive", "r", "json", "quiet", "q", "no-color", "disable-pager", "dp", "debug"})


def _options(words: Sequence[str]) -> dict[str, str | bool]:
    found: dict[str, str | bool] = {}
    left = list(words)
    while left:
        name, equals, value = left.pop(0).lstrip("-").partition("=")
        if name in _VALUES:
            found[name] = value if equals or not left else left.pop(0)
        elif name in _FLAGS:
            found[name] = True
        else:
            raise BadInput(f"wio mc watch has no option --{name}.", todo="It takes --events, --prefix, --suffix and --json.")
    return found


def _each(client: Client, path: str | None) -> Iterable[FileChange]:
    from wio.watching import Watch  # noqa: PLC0415  - brings httpx, which help does without

    for page in Watch(client, path, note=output.note).pages():
        yield from page


def _say(line: str) -> None:
    output.line(line)
    sys.stdout.flush()  # whoever reads wants it now


def _line(change: FileChange) -> str:
    at = clock_time(int(datetime.now(UTC).timestamp() * 1_000_000))[:-4]
    what, large = ("removed", "") if change.gone else ("written", size(change.size))
    return f"{at}  {what}  {large:>5}  {safe(change.path)}  {safe(change.node)}"


def _event(change: FileChange) -> tuple[str, str]:
    """Return time and type as MinIO writes them. Of a removal the time is when it was heard of."""
    at = datetime.now(UTC) if change.modified_at is None else datetime.fromtimestamp(change.modified_at / 1_000_000, UTC)
    kind = "s3:ObjectRemoved:Delete" if change.gone else "s3:ObjectCreated:Put"
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z", kind


def _as_mc(change: FileChange) -> str:
    at, kind = _event(change)
    large = "" if change.gone else _binary(change.size)
    return f"[{at}] {large:>6} {kind} {safe(change.path)}"


def _as_mc_json(change: FileChange) -> str:
    at, kind = _event(change)
    event: dict[str, Any] = {"time": at, "size": change.size, "path": change.path, "type": kind}
    return msgspec.json.encode({"status": "success", "events": event, "source": {}}).decode()


def _binary(count: int) -> str:
    """Return bytes as mc writes them: ``17 KiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":  # noqa: PLR2004  - bytes
            return f"{value:.0f} {unit}" if unit == "B" or value >= 10 else f"{value:.1f} {unit}"  # noqa: PLR2004  - as mc does
        value /= 1024
    return str(count)  # pragma: no cover - the loop ends at its last unit
