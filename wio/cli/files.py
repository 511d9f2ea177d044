"""``wio file``: one file, with what was read out of it."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import moment, safe, size

_PANEL: Final = "Files"
_TEXT: Final = 400
"""Characters of a file's text that are shown."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("file", rich_help_panel=_PANEL)(show)


def show(
    path: Annotated[str, typer.Argument(metavar="PATH", help="[OWNER/]WORKSPACE/FILE", show_default=False)],
    json: Json = False,
) -> None:
    """Show one file as the index has it: size, time, and the fields, tags and words that were read out of it."""
    with here.session() as session:
        one = session.client.file(path)
    if json:
        output.value(one)
        return
    text = " ".join(one.text.split())
    output.fields(
        [
            ("file", one.path),
            ("size", f"{size(one.size)} ({one.size:,} bytes)"),
            ("modified", moment(one.modified_at)),
            ("etag", one.etag),
            ("node", one.node),
            ("type", one.kind),
            *((name, _value(value)) for name, value in one.values.items()),
            *((f"tag {safe(name)}", value) for name, value in one.tags.items()),
            ("text", text[:_TEXT] + ("…" if len(text) > _TEXT else "")),
            ("could not be read", one.problem),
        ]
    )


def _value(value: str | float) -> str:
    """Return a value as ``wio find`` takes it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
