"""``wio creds``: keys for other tools.

``wio creds PATH`` is short for ``wio creds get PATH``. A workspace that is called like a command here is still to be had:
``wio creds get serve``.
"""

from __future__ import annotations

import enum
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from msgspec import UNSET, UnsetType
from typer.core import TyperGroup

from protocol.errors import BadInput
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import MICROSECONDS, life, may, moment, safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wio.credentials import Key, Opening

_PANEL: Final = "Keys"


class Format(enum.StrEnum):
    """For whom keys are written."""

    ENV = "env"
    DOTENV = "dotenv"
    POWERSHELL = "powershell"
    PROCESS = "process"
    JSON = "json"


class Open(msgspec.Struct, frozen=True):
    """What one path of a key is on its node."""

    path: str
    workspace: str
    bucket: str
    prefix: str
    key: str
    permission: str


class NodeKey(msgspec.Struct, frozen=True):
    """A key in the clear. ``expires_at`` in Unix microseconds."""

    node: str
    endpoint: str
    region: str
    access_key: str
    secret_key: str
    session_token: str
    expires_at: int
    opens: tuple[Open, ...]

    def __repr__(self) -> str:
        return f"NodeKey({self.access_key} at {self.endpoint})"


class ClearKeys(msgspec.Struct, frozen=True):
    """What ``wio creds --json`` answers: one key for each node."""

    keys: tuple[NodeKey, ...]


class Process(msgspec.Struct, frozen=True, rename="pascal"):
    """The form that ``credential_process`` in AWS's configuration files reads. Not every node gives a session token."""

    version: int
    access_key_id: str
    secret_access_key: str
    session_token: str | UnsetType
    expiration: str

    def __repr__(self) -> str:
        return f"Process({self.access_key_id})"


class KeptKey(msgspec.Struct, frozen=True):
    """A key on this machine, without its secret. Times in Unix microseconds; ``kind``: what it was asked for as."""

    node: str
    access_key: str
    kind: str
    fetched_at: int
    expires_at: int


class _Short(TyperGroup):
    """The group ``wio creds``: what begins with none of its commands is for ``get``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``get`` before paths and options."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["get", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=_Short, no_args_is_help=True, help="Storage keys for your own tools. wio creds PATH is short for wio creds get PATH."
)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(group, name="creds", rich_help_panel=_PANEL)


@group.command("get")
def creds(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="What the key must reach.", show_default=False)],
    *,
    read_only: Annotated[bool, typer.Option("--read-only", help="A key that can only list and read.")] = False,
    narrow: Annotated[bool, typer.Option("--narrow", help="A key that reaches these paths and nothing else.")] = False,
    ttl: Annotated[str, typer.Option("--ttl", metavar="LIFE", help="How long it lives: 900, 15m, 1h.")] = "1h",
    form: Annotated[
        Format,
        typer.Option("--format", help="env: lines for a shell; powershell: for PowerShell; process: for credential_process."),
    ] = Format.ENV,
    any_of: Annotated[
        bool, typer.Option("--any", help="One key that reaches at least one of the paths: for tools that go on with the rest.")
    ] = False,
    hub: Annotated[
        str | None, typer.Option("--hub", metavar="URL", help="Of this hub, whichever is the usual one.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Print a storage key for your own tools: aws, boto3, rclone, DuckDB. One key reaches all you have on that node."""
    from wio.credentials import Wish  # noqa: PLC0415  - brings cryptography, which help does without

    if any_of and narrow:
        raise BadInput("--narrow says what a key must reach, and --any that part of it is enough.", todo="Choose one.")
    wish = Wish(life_s=life(ttl), read_only=read_only, narrow=narrow)
    # Tools ask for the process form at every start of theirs, and find out by themselves when a key is refused. In the other
    # forms a person takes the key along: it has to be good now.
    confirmed = json or form is not Format.PROCESS
    with here.session(hub) as session:
        keys = session.keys
        opened = (keys.any(paths, wish, confirmed=confirmed),) if any_of else keys.open(paths, wish, confirmed=confirmed)
        for warning in session.keys.warnings:
            output.note(f"# warning: {safe(warning)}")
    if json or form is Format.JSON:
        output.value(ClearKeys(tuple(_node_key(key, opened) for key in _each_key(opened))))
        return
    key = _only_key(opened)
    if form is Format.PROCESS:
        output.value(as_process(key))
        return
    for text in as_lines(key, form):
        output.line(text)
    for opening in opened:
        output.note(f"# {safe(opening.place.path)} is {safe(opening.place.uri)} ({may(opening.place.permission)})")
    output.note(f"# The key of node {safe(key.node)} is good until {moment(key.expires * MICROSECONDS)}.")


@group.command("ls")
def kept(*, json: Json = False) -> None:
    """List the keys on this machine that are still good. None of their secrets is shown."""
    with here.session() as session:
        found = session.keys.kept()
    if json:
        output.value(
            [
                KeptKey(key.node, key.access_key, kind, key.fetched * MICROSECONDS, key.expires * MICROSECONDS)
                for kind, key in found
            ]
        )
        return
    if not found:
        output.note("There is no key on this machine.")
        return
    columns = [output.Column(title) for title in ("node", "key", "asked for", "good until")]
    rows = [(key.node, key.access_key, f"{kind} s", moment(key.expires * MICROSECONDS)) for kind, key in found]
    output.table(columns, rows)


def as_lines(key: Key, form: Format) -> list[str]:
    """Return the variables that AWS's tools read, quoted for a shell, PowerShell or a .env file.

    A node that gives no session token leaves none over from another key, either.
    """
    variables = [
        ("AWS_ACCESS_KEY_ID", key.access_key),
        ("AWS_SECRET_ACCESS_KEY", key.secret_key),
        ("AWS_SESSION_TOKEN", key.session_token),
        ("AWS_ENDPOINT_URL_S3", key.endpoint),
        ("AWS_ENDPOINT_URL", key.endpoint),
        ("AWS_REGION", key.region),
        ("AWS_DEFAULT_REGION", key.region),
    ]
    return [line for name, text in variables if (line := _as_line(name, text, form))]


def _as_line(name: str, text: str, form: Format) -> str:
    if form is Format.POWERSHELL:
        quoted = text.replace("'", "''")
        return f"$env:{name} = '{quoted}'" if text else f"Remove-Item Env:{name} -ErrorAction SilentlyContinue"
    if form is Format.ENV:
        return f"export {name}={shlex.quote(text)}" if text else f"unset {name}"
    return f"{name}={shlex.quote(text)}" if text else ""


def as_process(key: Key) -> Process:
    """Return the form for ``credential_process``."""
    ends = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Process(1, key.access_key, key.secret_key, key.session_token or UNSET, ends)


def _each_key(opened: Iterable[Opening]) -> list[Key]:
    return list({opening.key.node: opening.key for opening in opened}.values())


def _only_key(opened: Sequence[Opening]) -> Key:
    found = _each_key(opened)
    if len(found) > 1:
        nodes = " and ".join(safe(key.node) for key in found)
        raise BadInput(
            f"These paths are on {nodes}, and each node has a key of its own.", todo="Ask for one at a time, or --json."
        )
    return found[0]


def _node_key(key: Key, opened: Sequence[Opening]) -> NodeKey:
    places = [opening.place for opening in opened if opening.key.node == key.node]
    return NodeKey(
        node=key.node,
        endpoint=key.endpoint,
        region=key.region,
        access_key=key.access_key,
        secret_key=key.secret_key,
        session_token=key.session_token,
        expires_at=key.expires * MICROSECONDS,
        opens=tuple(
            Open(one.path, one.workspace, one.bucket, one.prefix, one.key, one.permission.value)
            for one in {place.path: place for place in places}.values()
        ),
    )
