"""``wio creds serve``: a person's own tools get their keys by themselves, on a machine without an agent."""

from __future__ import annotations

import shlex
import signal
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from wio.cli import here, keys, output
from wio.cli.output import Json
from wio.cli.words import safe

if TYPE_CHECKING:
    from collections.abc import Callable

    from wio.credentials import Key

_FOLDER: Final = "serve"


class Served(msgspec.Struct, frozen=True):
    """One node that ``wio creds serve`` gives keys for."""

    node: str
    uri: str
    token_file: str
    endpoint: str
    region: str


class Serving(msgspec.Struct, frozen=True):
    """What ``wio creds serve --json`` answers, before it goes on to serve."""

    nodes: tuple[Served, ...]


def add_to(_: typer.Typer) -> None:
    """Register the command, below ``wio creds``."""
    keys.group.command("serve")(serve)


def serve(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="What the keys must reach.", show_default=False)],
    *,
    port: Annotated[str, typer.Option("--port", metavar="N", help="Of 127.0.0.1; 0: a free one.")] = "0",
    read_only: Annotated[bool, typer.Option("--read-only", help="Keys that can only list and read.")] = False,
    json: Json = False,
) -> None:
    """Give your tools their keys at an address of this machine, until Ctrl-C: they fetch new ones by themselves.

    Prints the variables that tools read, then one line on standard error for each request.
    """
    from protocol.errors import BadInput  # noqa: PLC0415  - only for one mistake
    from wio.credentials import Wish  # noqa: PLC0415  - brings cryptography, which help does without
    from wio.serving import Server, listening  # noqa: PLC0415

    if not (port.isascii() and port.isdigit() and int(port) < 65_536):  # noqa: PLR2004  - ports end there
        raise BadInput(f"{port!r} is no port.", todo="Give a number from 1024 to 65535, or 0.")
    wish = Wish(read_only=read_only)
    with here.session() as session:
        opened = session.keys.open(paths, wish)
        by_node = {one.key.node: one.key for one in opened}
        below = {node: tuple(one.place.path for one in opened if one.key.node == node) for node in by_node}

        def fetch(node: str) -> Callable[[], Key]:
            return lambda: session.keys.any(below[node], wish).key

        folder = session.config.directory.expanduser().absolute() / _FOLDER
        with listening(Server({node: fetch(node) for node in by_node}, folder, _note, port=int(port))) as server:
            served = tuple(
                Served(node, server.address(node), str(server.token_file), key.endpoint, key.region)
                for node, key in by_node.items()
            )
            if json:
                output.value(Serving(served))
            else:
                _print(served)
            output.flush()
            signal.signal(signal.SIGTERM, _interrupt)
            try:
                server.serve_forever(poll_interval=0.2)
            except KeyboardInterrupt:  # how one ends it
                _note("stopped; the token is no longer good")


def _print(served: tuple[Served, ...]) -> None:
    for one in served:
        if len(served) > 1:
            output.line(f"# for node {safe(one.node)} alone:")
        for name, text in (
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", one.uri),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", one.token_file),
            ("AWS_ENDPOINT_URL_S3", one.endpoint),
            ("AWS_REGION", one.region),
        ):
            output.line(f"export {name}={shlex.quote(text)}")
    output.note("# Keys are given until Ctrl-C. Unset AWS_ACCESS_KEY_ID and AWS_PROFILE: tools would prefer them.")


def _note(text: str) -> None:
    output.note(safe(text))


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
