"""``wio root set`` and ``wio root retire``: what an owner or a manager may change about a root, without touching its data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from msgspec import UNSET

from protocol.api import Root
from protocol.errors import BadInput
from protocol.hours import check_hours
from protocol.messages import IndexLevel
from wio.cli import asking, here, output, receipts
from wio.cli.output import Json
from wio.cli.words import count, root_address, safe, size

Address = Annotated[str, typer.Argument(metavar="NODE/ROOT", help="The root.", show_default=False)]


def add_to(group: typer.Typer) -> None:
    """Register the commands with the others of ``wio root``."""
    group.command("set")(change)
    group.command("retire")(retire)


def change(
    address: Address,
    *,
    level: Annotated[
        IndexLevel | None, typer.Option("--level", help="How much the hub may know of the files.", show_default=False)
    ] = None,
    pace: Annotated[
        int | None,
        typer.Option("--pace", min=0, help="Files a second while scanning; 0: no limit.", show_default=False),
    ] = None,
    quiet: Annotated[
        str | None,
        typer.Option(
            "--quiet",
            metavar="08:00-18:00",
            help="Hours of the node's day in which no scan runs; '' for none.",
            show_default=False,
        ),
    ] = None,
    creators: Annotated[
        str | None,
        typer.Option(
            "--creators", metavar="WHO,…", help="Who may make workspaces: users, @groups, public.", show_default=False
        ),
    ] = None,
    managers: Annotated[
        str | None,
        typer.Option("--managers", metavar="WHO,…", help="Who may change it beside its owner.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """Change a root. A list replaces the one there was; '' empties it; what is not given stays."""
    node, name = root_address(address)
    if all(one is None for one in (level, pace, quiet, creators, managers)):
        raise BadInput("There is nothing to change.", todo="Give --level, --pace, --quiet, --creators or --managers.")
    with here.session() as session:
        changed = session.client.change_root(
            node,
            name,
            level=UNSET if level is None else level,
            pace=UNSET if pace is None else pace,
            quiet=UNSET if quiet is None else check_hours(quiet),
            creators=UNSET if creators is None else _names(creators),
            managers=UNSET if managers is None else _names(managers),
        )
    if json:
        output.value(changed)
        return
    output.fields(
        [
            ("root", f"{changed.node}/{changed.name}"),
            ("index", changed.level.value),
            *hours(changed),
            *roles(changed),
        ]
    )
    for text in changed.warnings:
        output.note(f"warning: {safe(text)}")


def retire(
    address: Address,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Take a root and its workspaces out of wio. Its data stays where it is, as it is."""
    node, name = root_address(address)
    shown = f"{safe(node)}/{safe(name)}"
    with here.session() as session:
        client = session.client
        if not yes and asking.terminal():
            one = client.root(node, name)
            output.note(
                f"{shown} holds {count(one.objects, 'file')}, {size(one.bytes)} at s3://{safe(one.bucket)}/{safe(one.prefix)}. "
                "They stay there; its workspaces, their shares and all keys for them end."
            )
        asking.confirm(f"Retire {shown}?", f"Retiring {shown}", yes=yes)
        done = client.retire_root(node, name)
        session.keys.forget()  # places that are no more
    if json:
        output.value(done)
    else:
        output.line(f"{safe(done.root)} is retired with {count(done.workspaces, 'workspace')}. Every file stays where it is.")
        for text in receipts.together(done.receipts):
            output.line(text)
    raise typer.Exit(receipts.exit_code(done.receipts))


def hours(root: Root) -> Sequence[tuple[str, str]]:
    """Return how fast a root is scanned, and when not, as fields."""
    paced = f"{count(root.pace, 'file')} a second while scanning" if root.pace else "no limit"
    return ("pace", paced), ("quiet hours", f"{root.quiet} by the node's clock" if root.quiet else "")


def roles(root: Root) -> Sequence[tuple[str, str]]:
    """Return who may do what with a root, as fields."""
    creators = ", ".join("everyone" if who == "public" else who for who in root.creators)
    return ("creators", creators or "its owner only"), ("managers", ", ".join(root.managers) or "its owner only")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part for part in (word.strip() for word in text.split(",")) if part))
