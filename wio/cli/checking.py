"""``wio doctor``: what is wrong between here and one's files, and what to do about it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wio.cli import output
from wio.cli.output import Json
from wio.cli.words import count, safe

if TYPE_CHECKING:
    from protocol.checkup import Finding

_PANEL: Final = "You"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=_PANEL)(doctor)


def doctor(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NODE…]", help="Nodes to look at; those of your workspaces if none is named."),
    ] = None,
    json: Json = False,
) -> None:
    """Look at hub, clock, sign-in, every node from here, and your tools; say what to do. Exit code 1 if something is wrong.

    Nothing is changed: it asks the hub who you are, fetches one key for each node, and lists one name with it.
    """
    from protocol.checkup import checkup  # noqa: PLC0415  - only this reads mail dates
    from wio.doctor import Doctor  # noqa: PLC0415  - brings much that help does without

    found: list[Finding] = []
    part = ""
    for finding in Doctor(os.environ, only=tuple(nodes or ())).findings():
        found.append(finding)
        if not json:
            if finding.part != part:
                part = finding.part
                output.line(safe(part))
            _say(finding)
    whole = checkup(found)
    if json:
        output.value(whole)
    else:
        output.line(f"{count(whole.wrong, 'thing')} to put right." if whole.wrong else "All is well.")
    if whole.wrong:
        raise typer.Exit(1)


def _say(finding: Finding) -> None:
    output.line(f"  {output.mark(finding.verdict.value)} {safe(finding.what)}: {safe(finding.says)}")
    if finding.todo:
        output.line(f"         {safe(finding.todo)}")
