"""``wio share``, ``unshare``, ``shares``: who may do what, with the receipts of every change."""

from __future__ import annotations

import time
from typing import Annotated, Final

import msgspec
import typer

from protocol.api import Share, ShareChange
from protocol.errors import BadInput
from protocol.grants import Permission
from wio.cli import here, output, receipts
from wio.cli.output import Column, Json
from wio.cli.words import MICROSECONDS, day, moment, safe, until

_PANEL: Final = "Sharing"
Name = Annotated[str, typer.Argument(metavar="WS", help="The workspace, NAME or OWNER/NAME.", show_default=False)]
Who = Annotated[str, typer.Argument(help="A user name, @group, or public for everyone.", show_default=False)]


class Shared(msgspec.Struct, frozen=True):
    """The shares of one workspace, as ``wio shares`` without a name answers for each."""

    workspace: str
    shares: list[Share]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (share, unshare, shares):
        app.command(rich_help_panel=_PANEL)(command)


def share(
    workspace: Name,
    who: Who,
    *,
    read: Annotated[bool, typer.Option("--read", help="Let them list and read (as without any of these).")] = False,
    write: Annotated[bool, typer.Option("--write", help="Let them read, change and delete.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Let them upload without seeing.")] = False,
    manage: Annotated[bool, typer.Option("--manage", help="Let them write, and share it on.")] = False,
    end: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="End by itself: 2027-01-01, 7d.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Share a workspace, or change what somebody may do in it."""
    asked = (("read", read), ("write", write), ("drop", drop), ("manage", manage))
    chosen = [Permission(name) for name, on in asked if on] or [Permission.READ]
    if len(chosen) > 1:
        raise BadInput("Only one of --read, --write, --drop and --manage can be given.")
    ends = None if end is None else until(end, int(time.time() * MICROSECONDS))
    with here.session() as session:
        done = session.client.share(workspace, who, chosen[0], until=ends)
    _show(done, workspace, json=json)
    if ends is not None and not json:
        output.line(f"It ends by itself at {moment(ends)}.")
    raise typer.Exit(receipts.exit_code(done.receipts))


def unshare(workspace: Name, who: Who, *, json: Json = False) -> None:
    """Take a share back: keys and links that are out stop working at their next request."""
    with here.session() as session:
        done = session.client.unshare(workspace, who)
    _show(done, workspace, json=json)
    raise typer.Exit(receipts.exit_code((*done.receipts, *done.links)))


def shares(
    workspace: Annotated[
        str | None, typer.Argument(metavar="[WS]", help="The workspace; without it, all of yours.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List who a workspace is shared with."""
    with here.session() as session:
        client = session.client
        names = [workspace] if workspace else [f"{one.owner}/{one.name}" for one in client.workspaces("mine")]
        found = [Shared(name, client.shares(name)) for name in names]
    if json:
        output.value(found[0].shares if workspace else found)
        return
    rows = [_row(one.workspace, grant) for one in found for grant in one.shares]
    if not rows:
        output.note("Not shared with anybody." if workspace else "None of your workspaces is shared.")
        return
    columns = [
        Column("workspace", fold=True),
        Column("who"),
        Column("may"),
        Column("since"),
        Column("until"),
        Column("by"),
        Column("node", fold=True),
    ]
    output.table(columns, rows)


def _row(workspace: str, grant: Share) -> tuple[str, ...]:
    ends = "" if grant.until is None else moment(grant.until)
    agrees = "agrees" if grant.applied else f"not yet{': ' if grant.reason else ''}{grant.reason}"
    return workspace, grant.who, grant.permission.value, day(grant.since), ends, grant.by, agrees


def _show(done: ShareChange, asked: str, *, json: bool) -> None:
    if json:
        output.value(done)
        return
    output.line(receipts.change(done, safe(asked.rstrip("/"))))
    name = safe(asked.rstrip("/"))
    for text in (*receipts.together(done.receipts), *receipts.links(done.links, name)):
        output.line(text)
