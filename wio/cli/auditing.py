"""``wio audit``: who granted, changed and fetched what, when; and whether that record is whole."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from protocol.api import AuditCheck
from protocol.errors import BadInput, WioError
from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import count, moment, safe

_PANEL: Final = "You"
_USUAL: Final = 50


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=_PANEL)(audit)


def audit(
    *,
    limit: Annotated[
        int | None,
        typer.Option("--limit", min=1, max=1000, help="So many entries, newest first; 50 without.", show_default=False),
    ] = None,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help="Only entries older than this one.", show_default=False)
    ] = None,
    workspace: Annotated[
        str | None, typer.Option("--workspace", metavar="WS", help="Only what is about this workspace.", show_default=False)
    ] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="All of it, one JSON text a line, oldest first.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Is every line as it was written? Exits with 1 if not.")] = False,
    json: Json = False,
) -> None:
    """Show who did what to what, newest first, as far as you may know."""
    if check and (jsonl or workspace is not None or limit is not None or before is not None):
        raise BadInput("--check is about the whole record.", todo="Give it alone, or with --json.")
    if jsonl and (json or limit is not None or before is not None):
        raise BadInput("--jsonl gives everything, from the beginning.", todo="Give it alone, or with --workspace.")
    with here.session() as session:
        if check:
            _check(session.client.audit_check(), json=json)
            return
        if jsonl:
            for line in session.client.audit_lines(workspace=workspace):
                sys.stdout.write(line.decode("utf-8", "replace") + "\n")
            return
        entries = session.client.audit(limit=limit or _USUAL, before=before, workspace=workspace)
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


def _check(found: AuditCheck, *, json: bool) -> None:
    if json:
        output.value(found)
    elif found.whole:
        output.line(f"The record is whole: {count(found.lines, 'line')}, each as it was written.")
        if found.unchained:
            output.line(f"{count(found.unchained, 'line')} of before that cannot be checked.")
        if found.head:
            output.line(
                f"Its newest line has the chain {safe(found.head)}: kept elsewhere, it tells later whether it was rewritten."
            )
    else:
        at = "" if found.broken_at is None else f" Line {found.broken_at} is the first that is not as it was written."
        output.line(f"The record was changed.{at}")
    raise typer.Exit(0 if found.whole else WioError.exit_code)
