"""``wio group``: people who are given something together, as ``@name``; every change with what it did to keys that are out."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from protocol.api import Group, GroupChange
from wio.cli import asking, here, output, receipts
from wio.cli.output import Column, Json
from wio.cli.words import day, safe

_PANEL: Final = "Sharing"
Name = Annotated[str, typer.Argument(metavar="@GROUP", help="The group; the @ may be left out.", show_default=False)]
User = Annotated[str, typer.Argument(help="A user name.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    group = typer.Typer(no_args_is_help=True, help="Groups: make, list, show, who is in them.")
    group.command("create")(create)
    group.command("ls")(list_groups)
    group.command("show")(show)
    group.command("add")(add)
    group.command("remove")(remove)
    group.command("rm")(delete)
    app.add_typer(group, name="group", rich_help_panel=_PANEL)


def create(
    name: Name,
    *,
    description: Annotated[str, typer.Option("--description", help="A line about who is in it.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Make a group. You own it and are in it."""
    with here.session() as session:
        made = session.client.create_group(name, description)
    if json:
        output.value(made)
        return
    output.line(f"{_at(made.name)} is made, and you are in it. Take people in: wio group add {_at(made.name)} USER")


def list_groups(json: Json = False) -> None:
    """List the groups there are."""
    with here.session() as session:
        found = session.client.groups()
    if json:
        output.value(found)
        return
    if not found:
        output.note("No groups. Make one: wio group create NAME.")
        return
    columns = [Column("group"), Column("owner"), Column("people", right=True), Column("about", fold=True)]
    rows = [(f"@{one.name}", one.owner, f"{len(one.members):,}" if one.members else "-", one.description) for one in found]
    output.table(columns, rows)


def show(name: Name, json: Json = False) -> None:
    """Show one group and, if you are in it, who else is."""
    with here.session() as session:
        one = session.client.group(name)
    if json:
        output.value(one)
        return
    output.fields(
        [("group", f"@{one.name}"), ("about", one.description), ("owner", one.owner), ("made", day(one.created_at))],
    )
    if not one.members:
        output.note("You are not in it, so who is in it is not shown.")
        return
    output.line()
    columns = [Column("person"), Column("since"), Column("may")]
    output.table(columns, [(member.username, day(member.since), _role(one, member.username)) for member in one.members])


def add(
    name: Name,
    user: User,
    *,
    manager: Annotated[bool, typer.Option("--manager", help="Let them change who is in it, too.")] = False,
    json: Json = False,
) -> None:
    """Take somebody into a group: keys of theirs that are out reach at once what the group was given."""
    with here.session() as session:
        done = session.client.add_member(name, user, manager=manager)
    _show(done, f"{safe(user)} is in {_at(done.group)}{', and may change who is' if manager else ''}.", json=json)


def remove(name: Name, user: User, *, json: Json = False) -> None:
    """Take somebody out of a group: keys of theirs that are out lose at once what the group was given."""
    with here.session() as session:
        done = session.client.remove_member(name, user)
    _show(done, f"{safe(user)} is no longer in {_at(done.group)}.", json=json)


def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Delete a group: what it was given ends for everybody in it, also on keys that are out."""
    asking.confirm(f"Delete {_at(name)} and end all that is shared with it?", f"Deleting {_at(name)}", yes=yes)
    with here.session() as session:
        done = session.client.delete_group(name)
    _show(done, f"{_at(done.group)} is deleted; nothing is shared with it any more.", json=json)


def _show(done: GroupChange, said: str, *, json: bool) -> None:
    if json:
        output.value(done)
    else:
        output.line(said)
        for text in receipts.together(done.receipts):
            output.line(text)
    raise typer.Exit(receipts.exit_code(done.receipts))


def _role(group: Group, username: str) -> str:
    if username == group.owner:
        return "everything: it is theirs"
    managing = any(member.manager for member in group.members if member.username == username)
    return "change who is in it" if managing else ""


def _at(name: str) -> str:
    return f"@{safe(name.removeprefix('@'))}"
