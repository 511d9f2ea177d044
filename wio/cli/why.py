"""``wio why``, ``access``, ``accesses``: who may or might reach what and for which reason, and who did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer

from protocol.api import AccessEntry, Why, WhyStep
from protocol.errors import WioError
from wio.cli import here, output
from wio.cli.output import Column, Json
from wio.cli.words import may, moment, safe, when

_PANEL: Final = "Sharing"
_SOURCES: Final = frozenset({"owner", "grant", "group", "everyone", "public-root"})
"""Links from which access comes."""
_ASIDE: Final = frozenset({"workspace", "keys"})
"""Links that tell where something is, and decide nothing."""


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (why, access, accesses):
        app.command(rich_help_panel=_PANEL)(command)


def why(
    who: Annotated[str, typer.Argument(help="A user name.", show_default=False)],
    path: Annotated[str, typer.Argument(help="A workspace, folder or file.", show_default=False)],
    chain: Annotated[bool, typer.Option("--chain", help="Every link from the person to the policy, one a line.")] = False,
    json: Json = False,
) -> None:
    """Explain whether somebody may reach a path: every reason, and what the storage server itself answers.

    Exits with 1 where the server answers otherwise than what is shared says.
    """
    with here.session() as session:
        found = session.client.why(who, path)
    if json:
        output.value(found)
    else:
        for text in explained(found, chain=chain):
            output.line(text)
    raise typer.Exit(WioError.exit_code if found.agrees is False else 0)


def access(
    workspace: Annotated[str, typer.Argument(metavar="WS", help="The workspace, NAME or OWNER/NAME.", show_default=False)],
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="TIME", help="At that time: 2026-03-01 (its beginning), 2026-03-01T14:00.", show_default=False
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List who can reach a workspace, or could at a time in the past."""
    moment_ = None if at is None else when(at)
    with here.session() as session:
        found = session.client.access(workspace, moment_)
    if json:
        output.value(found)
        return
    if not found:
        output.note(f"Nobody could reach {safe(workspace)} then." if at else f"Nobody can reach {safe(workspace)}.")
        return
    columns = [Column("who"), Column("may" if at is None else "might"), Column("through"), Column("since"), Column("until")]
    rows = [
        (one.who, one.permission, one.through, moment(one.since), "" if one.until is None else moment(one.until))
        for one in found
    ]
    output.table(columns, rows)


def accesses(
    path: Annotated[str, typer.Argument(help="A workspace, folder or file.", show_default=False)],
    *,
    who: Annotated[str | None, typer.Option("--who", metavar="USER", help="Only what they did.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="So many entries, newest first.")] = 50,
    before: Annotated[
        int | None, typer.Option("--before", metavar="ID", help="Only entries older than this one.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """List who read or wrote what, newest first, as the storage server itself reported it."""
    with here.session() as session:
        found = session.client.accesses(path, who=who, limit=limit, before=before)
    if json:
        output.value(found)
        return
    if not found:
        output.note("Nothing that the storage server has reported by now; it takes a minute or two.")
        return
    columns = [
        Column("id", right=True),
        Column("last at"),
        Column("who"),
        Column("did"),
        Column("times", right=True),
        Column("refused", right=True),
        Column("path", fold=True),
    ]
    output.table(columns, [_row(one) for one in found])


def explained(found: Why, *, chain: bool) -> Sequence[str]:
    """Write an explanation for people: the verdict, the reasons, what the server says, what to do. Pure.

    ``chain``: every link on a line of its own, with whether it lets them through; else those that decide, in one line.
    """
    verdict = "denied" if not found.allowed else f"allowed ({may(found.permission)})" if found.permission else "allowed"
    lines = [f"{verdict}. {safe(found.because)}".rstrip()]
    if chain:
        lines += [f"  {'yes' if step.holds else 'no':3} {safe(step.what)}: {safe(step.detail)}" for step in found.steps]
    else:
        reasons = [safe(step.detail).rstrip(".") for step in found.steps if step.detail and _decides(step, found)]
        lines += [f"  {'; '.join(reasons)}."] if reasons else []
    if found.server_said:
        agrees = {True: "The server agrees", False: "The server DISAGREES", None: "The server"}[found.agrees]
        lines.append(f"  {agrees}: {safe(found.server_said)}")
    if found.todo:
        lines.append(f"  {safe(found.todo)}")
    return lines


def _decides(step: WhyStep, found: Why) -> bool:
    """Say whether a link is among the reasons: where access comes from, or does not, and whatever takes it away."""
    if step.what in _ASIDE:
        return False
    if step.what == "policy":
        return not found.server_said  # else its answer says it
    if step.what not in _SOURCES:
        return not step.holds
    return step.holds if found.allowed else step.holds or step.what != "owner"


def _row(one: AccessEntry) -> tuple[str, ...]:
    refused = f"{one.refused:,}" if one.refused else ""
    return str(one.id), moment(one.last_at), one.who, one.operation, f"{one.count:,}", refused, one.path
