"""``wio vouch``: the hub's word for one node, with which the agent there gives one's own tools their keys."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from protocol.names import check_name
from wio import private
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import life, moment, safe

_PANEL: Final = "Keys"
_FOLDER: Final = "vouched"
_PORT: Final = "http://127.0.0.1:PORT/credentials"


class Vouched(msgspec.Struct, frozen=True):
    """What ``wio vouch --json`` answers. ``file`` holds the hub's word; ``expires_at`` in Unix microseconds."""

    node: str
    file: str
    endpoint: str
    expires_at: int


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel=_PANEL)(vouch)


def vouch(
    node: Annotated[str, typer.Argument(help="The node whose machine this is.", show_default=False)],
    *,
    endpoint: Annotated[
        str,
        typer.Option("--endpoint", metavar="URL", help="Where its agent gives keys: wio-agent status.", show_default=False),
    ] = "",
    file: Annotated[
        Path | None, typer.Option("--file", help="Where to write it, instead of wio's own folder.", show_default=False)
    ] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="LIFE", help="How long it holds, 7d at most: 1h, 12h, 7d.")] = "12h",
    json: Json = False,
) -> None:
    """Have tools on a node's own machine get their keys there by themselves, also while the hub is away.

    Writes the hub's word into a file that only you can read, and prints the variables that name it. Run it again before it
    ends: the file is replaced, and tools go on.
    """
    seconds = life(ttl)
    with here.session() as session:
        place = file or session.config.directory / _FOLDER / check_name(node, "node")
        issued = session.client.vouch(node, seconds)
    private.write(place.expanduser().absolute(), issued.assertion.encode())  # no newline: some SDKs would send it along
    told = Vouched(issued.node, str(place.expanduser().absolute()), endpoint, issued.expires_at)
    if json:
        output.value(told)
        return
    output.line(f"export AWS_CONTAINER_CREDENTIALS_FULL_URI={shlex.quote(endpoint or _PORT)}")
    output.line(f"export AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE={shlex.quote(told.file)}")
    if not endpoint:
        output.note(f"# wio-agent status on {safe(told.node)}'s machine says the port; WIO_AGENT_ENDPOINT sets it.")
    output.note(f"# Good until {moment(told.expires_at)}, for programs on the machine of node {safe(told.node)} only.")
