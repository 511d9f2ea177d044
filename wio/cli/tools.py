"""``wio tools``: other people's tools set up for one's workspaces, and back."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from protocol.errors import BadInput, NotFound
from protocol.names import shown
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import MICROSECONDS, moment, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wio.session import Session
    from wio.tools.setting_up import Desk
    from wio.tools.settings import Node, Tool

_PANEL: Final = "Keys"


class Setup(msgspec.Struct, frozen=True):
    """What ``wio tools setup --json`` answers: files written, or changed back; how the tool is used now; what to know of it."""

    tool: str
    nodes: tuple[str, ...]
    files: tuple[str, ...]
    usage: tuple[str, ...]
    remark: str


class Found(msgspec.Struct, frozen=True):
    """A tool: where it is on this machine, empty if it is not, and the nodes it is set up for."""

    tool: str
    found: str
    nodes: tuple[str, ...]


group = typer.Typer(no_args_is_help=True, help="Your own tools, set up for your workspaces: aws, rclone, DuckDB and others.")


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(group, name="tools", rich_help_panel=_PANEL)


@group.command("setup")
def setup(
    tool: Annotated[str, typer.Argument(help="aws, boto3, mc, rclone, s3fs, duckdb, restic or cyberduck.", show_default=False)],
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATH…]", help="Workspaces it is for; all of yours if none is named.", show_default=False),
    ] = None,
    *,
    show: Annotated[bool, typer.Option("--print", help="Write nothing: print what would be written.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was written for it.")] = False,
    json: Json = False,
) -> None:
    """Write the settings with which a tool reaches your workspaces and fetches its own keys: one profile for each node.

    What is in those files already stays as it is. wio tools setup aws --undo takes it all back.
    """
    from wio.tools.setting_up import starter  # noqa: PLC0415  - brings cryptography, which help does without
    from wio.tools.settings import TOOLS  # noqa: PLC0415

    if tool not in TOOLS:
        raise BadInput(f"wio sets up no {shown(tool)}.", todo=f"These it does: {', '.join(TOOLS)}. For others: wio creds.")
    chosen = TOOLS[tool]
    if undo:
        _undo(chosen, paths or [], json=json)
        return
    with here.session() as session:
        desk = _desk()
        nodes = _nodes(session, paths or _all(session))
        command = starter(session.seat.hub, os.environ)
        texts = desk.texts(chosen, nodes, command)
        if show:
            for text in texts:
                output.line(f"# ---- {safe(str(text.path))}")
                output.line(text.body.rstrip())
            files: Sequence[Path] = ()
        else:
            files = desk.set_up(chosen, nodes, command) if texts else ()
        if show and tool == "mc":
            _print_mc(session, nodes)
    _told(chosen, nodes, files, desk, json=json)


@group.command("ls")
def tools(*, json: Json = False) -> None:
    """List the tools that wio can set up: whether they are here, and for which nodes they are set up."""
    from wio.tools.setting_up import found  # noqa: PLC0415  - brings cryptography, which help does without
    from wio.tools.settings import TOOLS  # noqa: PLC0415

    state = _desk().state()
    rows = [
        Found(name, found(tool, os.environ), tuple(node.name for node in state.tools.get(name, ())))
        for name, tool in TOOLS.items()
    ]
    if json:
        output.value(rows)
        return
    columns = [output.Column("tool"), output.Column("set up for"), output.Column("on this machine", fold=True)]
    output.table(columns, [(one.tool, ", ".join(one.nodes) or "-", one.found or "not found") for one in rows])


def _undo(tool: Tool, paths: Sequence[str], *, json: bool) -> None:
    if paths:
        raise BadInput("--undo takes back all that was written for a tool.", todo="Leave the paths out.")
    desk = _desk()
    if tool.name not in desk.state().tools:
        raise NotFound(f"{tool.name} is not set up.", todo="wio tools ls shows what is.")
    files = desk.undo(tool)
    if json:
        output.value(Setup(tool.name, (), tuple(map(str, files)), (), ""))
        return
    output.line(f"{tool.name} is no longer set up.")
    for file in files:
        output.note(f"{safe(str(file))} {'is as it is without it' if file.exists() else 'is gone'}")


def _told(tool: Tool, nodes: Sequence[Node], files: Sequence[Path], desk: Desk, *, json: bool) -> None:
    from wio.tools.settings import REMARKS  # noqa: PLC0415  - as above

    usage = tuple(line for node in nodes for line in tool.usage(node, desk.files))
    remark = REMARKS.get(tool.name, "")
    if json:
        output.value(Setup(tool.name, tuple(node.name for node in nodes), tuple(map(str, files)), usage, remark))
        return
    for file in files:
        output.line(f"wrote {safe(str(file))}")
    if remark:
        output.note(f"# {remark}")
    for line in usage:
        output.note(safe(line))


def _print_mc(session: Session, nodes: Sequence[Node]) -> None:
    """Print what gives the real mc a key in one shell."""
    from wio.mc import host  # noqa: PLC0415  - as above

    for node in nodes:
        opening = session.keys.open((node.spots[0].path,), confirmed=True)[0]
        alias = "wio_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in node.name)
        output.line(f"export MC_HOST_{alias}={shlex.quote(host(opening))}")
        output.note(f"# until {moment(opening.key.expires * MICROSECONDS)}: mc ls {alias}/{safe(opening.place.uri)[5:]}")


def _all(session: Session) -> list[str]:
    found = [f"{one.owner}/{one.name}" for which in ("mine", "shared") for one in session.client.workspaces(which)]
    if not found:
        raise NotFound("You have no workspace, and none is shared with you.", todo="wio create NAME")
    return list(dict.fromkeys(found))


def _nodes(session: Session, paths: Sequence[str]) -> tuple[Node, ...]:
    from wio.tools.settings import nodes_of  # noqa: PLC0415  - as above

    return nodes_of([opening.place for opening in session.keys.open(paths)])


def _desk() -> Desk:
    from wio.config import Config  # noqa: PLC0415  - as above
    from wio.tools.setting_up import Desk  # noqa: PLC0415
    from wio.tools.settings import Files  # noqa: PLC0415

    config = Config.here().directory.expanduser().absolute()
    return Desk(config, Files.of(os.environ, Path.home(), config))
