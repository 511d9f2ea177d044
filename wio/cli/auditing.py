"""``wio audit``: who granted, changed and fetched what, when."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import moment

_PANEL: Final = "You"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=_PANEL)(audit)


def audit(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many entries, newest first.")] = 50,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help="Only entries older than this one.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show who did what to what, newest first, as far as you may know."""
    with here.session() as session:
        entries = session.client.audit(limit=limit, before=before)
    if json:
        output.value(entries)
        return
    columns = [
        Column("id", right=True),
        Column("at"),
        Column("who"),
        Column("did"),
        Column("to", fold=True),
        Column("detail", fold=True),
    ]
    rows = [(str(one.id), moment(one.at), one.actor, one.action, one.target, one.detail) for one in entries]
    output.table(columns, rows)
