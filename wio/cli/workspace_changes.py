"""``wio workspace describe|rename|archive|unarchive|handover|rm``: what an owner does with a workspace over the years."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from protocol.api import Workspace
from protocol.errors import BadInput, Internal, NotAllowed
from protocol.grants import Permission, Receipt
from wio.cli import asking, here, output, receipts
from wio.cli.output import Json
from wio.cli.words import count, safe, size

if TYPE_CHECKING:
    from wio.emptying import Emptied
    from wio.session import Session

_REMARK_EVERY = 10_000
Name = Annotated[str, typer.Argument(metavar="WS", help="The workspace, NAME or OWNER/NAME.", show_default=False)]


class Keep(enum.StrEnum):
    """What a former owner may still do."""

    READ = "read"
    WRITE = "write"


class Data(enum.StrEnum):
    """What became of the files of a workspace that is no more."""

    KEPT = "kept"
    DELETED = "deleted"


class Removed(msgspec.Struct, frozen=True):
    """What ``wio workspace rm`` answers: the hub's answer, and what became of the files. ``objects``, ``bytes``: deleted."""

    workspace: str
    bucket: str
    prefix: str
    receipts: tuple[Receipt, ...]
    data: Data
    objects: int
    bytes: int


def add_to(group: typer.Typer) -> None:
    """Register the commands with the others of ``wio workspace``."""
    group.command("describe")(describe)
    group.command("rename")(rename)
    group.command("archive")(archive)
    group.command("unarchive")(unarchive)
    group.command("handover")(handover)
    group.command("rm")(remove)


def describe(
    workspace: Name,
    text: Annotated[str, typer.Argument(help="A line about what is in it; '' for none.", show_default=False)],
    json: Json = False,
) -> None:
    """Say what is in a workspace, for those who may see it and those who may ask for it."""
    with here.session() as session:
        one = session.client.change_workspace(workspace, description=text)
    _show(one, f"{_address(one)}: {safe(one.description)}" if one.description else f"{_address(one)} has no description.", json)


def rename(
    workspace: Name,
    label: Annotated[str, typer.Argument(metavar="NEWLABEL", help="Its new name.", show_default=False)],
    json: Json = False,
) -> None:
    """Give a workspace another name. Its files are neither renamed nor moved; paths and links of wio's change."""
    with here.session() as session:
        one = session.client.change_workspace(workspace, name=label)
        session.keys.forget()  # what a path means has changed
    _show(one, f"{safe(workspace)} is now {_address(one)}. Its files lie where they were: {_where(one)}.", json)


def archive(workspace: Name, json: Json = False) -> None:
    """Close a workspace for writing: everybody, you too, can only read it, also with keys that are out."""
    with here.session() as session:
        one = session.client.change_workspace(workspace, archived=True)
    _show(one, f"{_address(one)} is archived: everybody, you too, can only read it.", json)


def unarchive(workspace: Name, json: Json = False) -> None:
    """Open an archived workspace again: everybody may do what they might before."""
    with here.session() as session:
        one = session.client.change_workspace(workspace, archived=False)
    _show(one, f"{_address(one)} is open again: everybody may do what they might before.", json)


def handover(
    workspace: Name,
    to: Annotated[str, typer.Argument(help="Who will own it, a user name.", show_default=False)],
    keep: Annotated[Keep | None, typer.Option("--keep", help="What you may still do.", show_default=False)] = None,
    json: Json = False,
) -> None:
    """Give a workspace to somebody else. Its files stay where they are; without --keep your keys lose it."""
    with here.session() as session:
        one = session.client.hand_over(workspace, to, keep=None if keep is None else Permission(keep.value))
        session.keys.forget()  # what a path means has changed
    left = f"You may still {keep.value} it." if keep else "You have no part in it any more."
    _show(one, f"{safe(workspace)} is {safe(one.owner)}'s now: {_address(one)}. {left}", json)


def remove(
    workspace: Name,
    *,
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Delete its files first, for good, with your own key.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; without --delete-data files are kept.")] = False,
    json: Json = False,
) -> None:
    """Take a workspace out of wio. You are asked what happens to its files: they stay where they are unless you say so."""
    with here.session() as session:
        one = session.client.workspace(workspace)
        if not yes:
            delete_data = _asked(one, delete_data=delete_data)
        emptied = _empty(session, one) if delete_data else None
        ended = session.client.delete_workspace(f"{one.owner}/{one.name}")
        session.keys.forget()  # places that are no more
    done = Removed(
        ended.workspace,
        ended.bucket,
        ended.prefix,
        ended.receipts,
        Data.KEPT if emptied is None else Data.DELETED,
        0 if emptied is None else emptied.objects,
        0 if emptied is None else emptied.bytes,
    )
    if json:
        output.value(done)
    else:
        _tell(done, one.node)
    raise typer.Exit(receipts.exit_code(done.receipts))


def _asked(one: Workspace, *, delete_data: bool) -> bool:
    """Ask what happens to the files, unless that was said, and whether to go on; return whether to delete them."""
    name, held = _address(one), f"{count(one.objects, 'file')}, {size(one.bytes)}"
    if asking.terminal():
        output.note(f"{name} holds {held}, at {_where(one)}.")
        delete_data = (
            delete_data or asking.choose("Keep its files there, or delete them for good?", ("keep", "delete")) == "delete"
        )
    deed = f"Deleting {held} for good and removing {name}" if delete_data else f"Removing {name}"
    asking.confirm(f"{deed}. Go on?", deed, yes=False)
    return delete_data


def _empty(session: Session, one: Workspace) -> Emptied:
    from wio import s3  # noqa: PLC0415  - brings botocore, which help does without
    from wio.credentials import Wish  # noqa: PLC0415
    from wio.emptying import empty  # noqa: PLC0415

    name = f"{one.owner}/{one.name}"
    if one.owner != session.client.me().username:
        raise NotAllowed(f"Only its owner deletes the files of {safe(name)}.", todo="Without --delete-data they are kept.")
    if one.archived_at is not None:
        raise BadInput(f"{safe(name)} is archived: its files cannot be deleted.", todo=f"wio w unarchive {safe(one.name)}")
    # Confirmed: a kept place may be that of another workspace which had this name before.
    place = session.keys.open((name,), Wish(narrow=True), confirmed=True)[0].place
    if (place.workspace, place.bucket, place.prefix) != (name, one.bucket, one.prefix):
        raise Internal(f"The hub says of {safe(name)} that it lies in two places. Nothing was deleted.")
    client = s3.botocore_session(name, narrow=True, session=session).create_client("s3")

    def seen(so_far: Emptied) -> None:
        if so_far.objects % _REMARK_EVERY == 0:
            output.note(f"{count(so_far.objects, 'file')} deleted so far.")

    emptied = empty(client, place, seen)
    output.note(f"{count(emptied.objects, 'file')}, {size(emptied.bytes)}, deleted from {_where(one)}.")
    return emptied


def _tell(done: Removed, node: str) -> None:
    where = f"s3://{safe(done.bucket)}/{safe(done.prefix)} on {safe(node)}"
    if done.data is Data.KEPT:
        output.line(f"{safe(done.workspace)} is removed. Its files stay where they are: {where}.")
    else:
        output.line(f"{safe(done.workspace)} is removed, and {count(done.objects, 'file')}, {size(done.bytes)}, with it.")
    for text in receipts.together(done.receipts):
        output.line(text)


def _show(one: Workspace, said: str, json: bool) -> None:
    """Say what was done and what became of it on the node; ends with the exit code that this means."""
    if json:
        output.value(one)
    else:
        output.line(said)
        for text in receipts.together(one.receipts):
            output.line(text)
    raise typer.Exit(receipts.exit_code(one.receipts))


def _address(one: Workspace) -> str:
    return f"{safe(one.owner)}/{safe(one.name)}"


def _where(one: Workspace) -> str:
    return f"s3://{safe(one.bucket)}/{safe(one.prefix)} on {safe(one.node)}"
