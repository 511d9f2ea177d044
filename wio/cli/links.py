"""``wio presign`` and ``wio links``: single files, opened to whoever has the address, until that ends or is ended."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import msgspec
import typer
from typer.core import TyperGroup

from protocol.api import Link, LinkRevoked
from protocol.errors import BadInput, NoGrant, UnknownWorkspace
from protocol.names import shown
from wio.cli import here, output, receipts
from wio.cli.output import Column, Json
from wio.cli.words import MICROSECONDS, life, moment, safe, span

_PANEL: Final = "Keys"


class NewLink(msgspec.Struct, frozen=True):
    """What ``wio presign --json`` answers. ``expires_at`` in Unix microseconds."""

    id: int
    path: str
    node: str
    method: str
    url: str
    expires_at: int

    def __repr__(self) -> str:
        return f"NewLink({self.id} on {self.node})"


class _Listing(TyperGroup):
    """A group whose first command is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what stands behind ``wio links``."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["ls", *args]
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command(rich_help_panel=_PANEL)(presign)
    group = typer.Typer(name="links", cls=_Listing, help="List and end links to single files.", no_args_is_help=False)
    group.command("ls")(links)
    group.command("rm")(remove)
    app.add_typer(group, rich_help_panel=_PANEL)


def presign(
    path: Annotated[str, typer.Argument(help="The file.", show_default=False)],
    *,
    expires: Annotated[str, typer.Option("--expires", metavar="LIFE", help="How long it works: 15m, 12h, 7d.")] = "1d",
    put: Annotated[bool, typer.Option("--put", help="A link for uploading the file, not for reading it.")] = False,
    json: Json = False,
) -> None:
    """Print a link to one file, which anybody who has it can open. It dies when you end it, and when your access ends."""
    from wio.links import make  # noqa: PLC0415  - brings cryptography, which help does without

    seconds = life(expires)
    with here.session() as session:
        try:
            made = make(session.client.make_link, session.pins, path, life_s=seconds, put=put, clock=time.time)
        except (UnknownWorkspace, NoGrant):
            session.keys.doubt(path)
            raise
    ends = made.expires * MICROSECONDS
    if json:
        output.value(NewLink(made.link.id, made.link.path, made.link.node, made.method, made.url, ends))
        return
    output.line(made.url)
    does = "upload this file, again and again" if put else "read this file"
    left = span(max(made.expires - time.time(), 1))
    output.note(f"Whoever has it can {does}, until {moment(ends)} ({left}). To end it: wio links rm {made.link.id}")
    if put:
        output.note("For example: curl -T FILE 'LINK'")


def links(
    path: Annotated[
        str | None,
        typer.Argument(metavar="[PATH]", help="A workspace or a path in it; without it, all of yours.", show_default=False),
    ] = None,
    json: Json = False,
) -> None:
    """List links that work: yours, or those below a path, which are everybody's if you manage the workspace."""
    with here.session() as session:
        found = session.client.links(path)
    if json:
        output.value(found)
        return
    if not found:
        output.note("No links.")
        return
    columns = [Column("link"), Column("file", fold=True), Column("for"), Column("by"), Column("node"), Column("until")]
    output.table(columns, [_row(one) for one in found])


def remove(
    numbers: Annotated[
        list[str] | None, typer.Argument(metavar="N…", help="Their numbers, as wio links shows them.", show_default=False)
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="All links of yours.")] = False,
    json: Json = False,
) -> None:
    """End links at once: whoever has one is refused at the next request."""
    if bool(numbers) == everything:
        raise BadInput("Say which links to end, or --all.", todo="wio links shows them.")
    wanted = [_number(text) for text in numbers or ()]
    with here.session() as session:
        wanted = wanted or [one.id for one in session.client.links()]
        done = [session.client.revoke_link(one) for one in wanted]
    if json:
        output.value(done)
    elif not done:
        output.note("No links.")
    else:
        for one in done:
            output.line(_ended(one))
    raise typer.Exit(receipts.exit_code(one.receipt for one in done))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise BadInput(f"{shown(text)} is not the number of a link.", todo="wio links shows them.")
    return int(text)


def _row(link: Link) -> tuple[str, ...]:
    return str(link.id), link.path, "upload" if link.put else "read", link.by, link.node, moment(link.expires_at)


def _ended(one: LinkRevoked) -> str:
    return f"Link {one.link.id} to {safe(one.link.path)}: {receipts.link(one.receipt)}"
