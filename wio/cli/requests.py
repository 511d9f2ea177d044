"""``wio request``, ``requests``, ``answer``: asking for access to somebody's workspace, and answering."""

from __future__ import annotations

import enum
import time
from typing import Annotated, Final

import typer

from protocol.api import AccessRequest
from protocol.errors import BadInput
from protocol.grants import Permission
from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import MICROSECONDS, moment, safe, until

_PANEL: Final = "Sharing"


class Answer(enum.StrEnum):
    """What can be answered."""

    YES = "yes"
    NO = "no"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (request, requests, answer):
        app.command(rich_help_panel=_PANEL)(command)


def request(
    workspace: Annotated[str, typer.Argument(metavar="OWNER/WS", help="Somebody's workspace.", show_default=False)],
    *,
    write: Annotated[bool, typer.Option("--write", help="Ask to write, not only to read.")] = False,
    message: Annotated[str, typer.Option("--message", "-m", help="Why, for whoever answers.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Ask for access to a workspace whose description you can see."""
    wanted = Permission.WRITE if write else Permission.READ
    with here.session() as session:
        asked = session.client.request_access(workspace, wanted, message)
    if json:
        output.value(asked)
        return
    output.line(f"Asked to {asked.permission.value} {safe(asked.workspace)}: request {asked.id}.")


def requests(json: Json = False) -> None:
    """List your requests, and those you may answer."""
    with here.session() as session:
        found = session.client.requests()
    if json:
        output.value(found)
        return
    if not found:
        output.note("No requests.")
        return
    columns = [
        Column("request", right=True),
        Column("at"),
        Column("who"),
        Column("wants to"),
        Column("workspace", fold=True),
        Column("answer"),
        Column("message", fold=True),
    ]
    rows = [
        (str(one.id), moment(one.created_at), one.who, one.permission.value, one.workspace, _answered(one), one.message)
        for one in found
    ]
    output.table(columns, rows)


def answer(
    number: Annotated[int, typer.Argument(metavar="N", min=0, help="The request, from wio requests.", show_default=False)],
    said: Annotated[Answer, typer.Argument(metavar="yes|no", help="The answer.", show_default=False)],
    *,
    end: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="End by itself: 2027-01-01, 7d.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Answer a request: yes shares the workspace with whoever asked, at once."""
    if end is not None and said is Answer.NO:
        raise BadInput("--until goes with yes.")
    ends = None if end is None else until(end, int(time.time() * MICROSECONDS))
    with here.session() as session:
        done = session.client.answer(number, said is Answer.YES, until=ends)
    if json:
        output.value(done)
    elif done.granted:
        last = f", until {moment(ends)}" if ends is not None else ""
        output.line(f"{safe(done.who)} may now {done.permission.value} {safe(done.workspace)}{last}.")
    else:
        output.line(f"{safe(done.who)} is told no; {safe(done.workspace)} is not shared with them.")


def _answered(one: AccessRequest) -> str:
    if one.granted is None:
        return "none yet"
    return f"{'yes' if one.granted else 'no'}{f' by {one.answered_by}' if one.answered_by else ''}"
