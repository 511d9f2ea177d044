"""``wio create``, ``wio ls`` and ``wio workspace`` (short: ``wio w``): workspaces, and the files in them from the index."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from protocol.api import FileEntry, Listing, Workspace
from wio.cli import here, output, workspace_changes
from wio.cli.output import Column, Json
from wio.cli.words import count, may, moment, safe, size, stale, view

_PANEL: Final = "Workspaces"
_PAGE: Final = 1000
Name = Annotated[str, typer.Argument(help="The workspace, NAME or OWNER/NAME.", show_default=False)]
NewName = Annotated[str, typer.Argument(help="Its name.", show_default=False)]
RootOption = Annotated[str | None, typer.Option("--root", help="Where: NODE/ROOT, or ROOT alone.", show_default=False)]
Public = Annotated[bool, typer.Option("--public", help="Everyone may read it.")]
Folder = Annotated[
    str | None, typer.Option("--folder", help="An existing folder of an unmanaged root that becomes it.", show_default=False)
]
Description = Annotated[str, typer.Option("--description", help="A line about what is in it.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("create", rich_help_panel=_PANEL)(create)
    app.command("ls", rich_help_panel=_PANEL)(ls)
    group = typer.Typer(no_args_is_help=True, help="Workspaces: make, list, show, change. Short: wio w.")
    group.command("create")(create)
    group.command("ls")(list_workspaces)
    group.command("show")(show)
    workspace_changes.add_to(group)
    app.add_typer(group, name="workspace", rich_help_panel=_PANEL)
    app.add_typer(group, name="w", hidden=True)


def create(
    name: NewName,
    *,
    root: RootOption = None,
    public: Public = False,
    folder: Folder = None,
    description: Description = "",
    json: Json = False,
) -> None:
    """Make a workspace."""
    with here.session() as session:
        made = session.client.create_workspace(name, root=root, public=public, folder=folder, description=description)
        session.keys.forget()  # one's own come first: what a path means may have changed
    if json:
        output.value(made)
        return
    output.line(
        f"{_address(made)} is made{' and public' if made.public else ''}: s3://{made.bucket}/{made.prefix} on {made.node}."
    )
    if made.objects:
        output.line(f"It holds {count(made.objects, 'file')}, {size(made.bytes)}.")


def list_workspaces(
    mine: Annotated[bool, typer.Option("--mine", help="Only your own.")] = False,
    shared: Annotated[bool, typer.Option("--shared", help="Only what others share with you.")] = False,
    public: Annotated[bool, typer.Option("--public", help="Only what everyone may read.")] = False,
    json: Json = False,
) -> None:
    """List workspaces: yours and what is shared with you, or one kind."""
    chosen = [which for which, on in (("mine", mine), ("shared", shared), ("public", public)) if on] or ["mine", "shared"]
    with here.session() as session:
        found = {one.id: one for which in chosen for one in session.client.workspaces(which)}
    _list(list(found.values()), json=json)


def show(name: Name, json: Json = False) -> None:
    """Show one workspace: where it lies, what it holds, what you may do."""
    with here.session() as session:
        one = session.client.workspace(name)
    if json:
        output.value(one)
        return
    output.fields(
        [
            ("workspace", _address(one)),
            ("about", one.description),
            ("holds", f"{count(one.objects, 'file')}, {size(one.bytes)}"),
            ("lies at", f"s3://{one.bucket}/{one.prefix} on {one.node} (root {one.root})" if one.bucket else one.node),
            ("public", "yes" if one.public else "no"),
            ("you may", may(one.permission) or "nothing yet; ask: wio request " + _address(one)),
            ("made", moment(one.created_at)),
            ("archived", moment(one.archived_at) if one.archived_at is not None else ""),
            *(("warning", text) for text in one.warnings),
        ]
    )


def ls(
    path: Annotated[
        str | None, typer.Argument(help="A folder or workspace; without it, your workspaces.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Stop after so many.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """List workspaces, or what is in a folder, from the index."""
    if path is None:
        list_workspaces(json=json)
        return
    with here.session() as session:
        listing = session.client.files(path, limit=min(limit or _PAGE, _PAGE))
        entries = list(listing.entries)
        while listing.after is not None and (limit is None or len(entries) < limit):
            wanted = _PAGE if limit is None else min(limit - len(entries), _PAGE)
            listing = session.client.files(path, after=listing.after, limit=wanted)
            entries += listing.entries
    if json:
        output.value(Listing(listing.path, tuple(entries), listing.after, listing.nodes))
        return
    columns = [Column("size", right=True), Column("modified"), Column("name", fold=True)]
    output.table(columns, [_entry(one) for one in entries], head=False)
    if listing.after is not None:
        output.note("There is more; leave out --limit to see all.")
    for node in listing.nodes:
        if stale(node):
            output.note(view(node))


def _list(found: list[Workspace], *, json: bool) -> None:
    if json:
        output.value(found)
        return
    if not found:
        output.note("No workspaces. Make one: wio create NAME; see what is public: wio w ls --public.")
        return
    columns = [
        Column("workspace", fold=True),
        Column("you may"),
        Column("files", right=True),
        Column("size", right=True),
        Column("node"),
        Column("about", fold=True),
    ]
    rows = [
        (
            _address(one),
            may(one.permission) or "-",
            f"{one.objects:,}",
            size(one.bytes),
            one.node,
            ("public. " if one.public else "") + ("archived. " if one.archived_at is not None else "") + one.description,
        )
        for one in found
    ]
    output.table(columns, rows)
    for text in dict.fromkeys(text for one in found for text in one.warnings):
        output.note(f"warning: {safe(text)}")


def _entry(one: FileEntry) -> tuple[str, str, str]:
    name = one.path.rstrip("/").rsplit("/", 1)[-1]
    if one.folder:
        return size(one.size), count(one.objects, "file"), name + "/"
    return size(one.size), moment(one.modified_at) if one.modified_at is not None else "-", name


def _address(one: Workspace) -> str:
    return f"{safe(one.owner)}/{safe(one.name)}"
