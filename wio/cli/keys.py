"""``wio creds`` and ``wio presign``: keys for other tools, and links to single files."""

from __future__ import annotations

import enum
import shlex
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from protocol.errors import BadInput, BadLifetime, OverCeiling
from protocol.names import shown
from wio.cli import here, output
from wio.cli.output import Json
from wio.cli.words import MICROSECONDS, life, may, moment, safe, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wio.credentials import Key, Keys, Opening

_PANEL: Final = "Keys"
_LONGEST_LINK_S: Final = 604_800
"""Seven days: the longest that a SigV4 link can say."""


_SLACK_S: Final = 60
"""Asked for above a link's life, so that the key outlives it."""


class Format(enum.StrEnum):
    """For whom keys are written."""

    ENV = "env"
    DOTENV = "dotenv"
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
    """The form that ``credential_process`` in AWS's configuration files reads."""

    version: int
    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: str

    def __repr__(self) -> str:
        return f"Process({self.access_key_id})"


class Link(msgspec.Struct, frozen=True):
    """What ``wio presign --json`` answers. Times in Unix microseconds; ``bounded``: shorter than asked, by the key's life."""

    path: str
    url: str
    expires_at: int
    asked_until: int
    bounded: bool


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (creds, presign):
        app.command(rich_help_panel=_PANEL)(command)


def creds(
    paths: Annotated[list[str], typer.Argument(metavar="PATH…", help="What the key must reach.", show_default=False)],
    *,
    read_only: Annotated[bool, typer.Option("--read-only", help="A key that can only list and read.")] = False,
    narrow: Annotated[bool, typer.Option("--narrow", help="A key that reaches these paths and nothing else.")] = False,
    ttl: Annotated[str, typer.Option("--ttl", metavar="LIFE", help="How long it lives: 900, 15m, 1h.")] = "1h",
    form: Annotated[
        Format, typer.Option("--format", help="env: lines for a shell; process: for credential_process.")
    ] = Format.ENV,
    json: Json = False,
) -> None:
    """Print a storage key for your own tools: aws, boto3, rclone, DuckDB. One key reaches all you have on that node."""
    from wio.credentials import Wish  # noqa: PLC0415  - brings cryptography, which help does without

    wish = Wish(life_s=life(ttl), read_only=read_only, narrow=narrow)
    # Tools ask for the process form at every start of theirs, and find out by themselves when a key is refused. In the other
    # forms a person takes the key along: it has to be good now.
    confirmed = json or form is not Format.PROCESS
    with here.session() as session:
        opened = session.keys.open(paths, wish, confirmed=confirmed)
        for warning in session.keys.warnings:
            output.note(f"# warning: {safe(warning)}")
    if json or form is Format.JSON:
        output.value(ClearKeys(tuple(_node_key(key, opened) for key in _each_key(opened))))
        return
    key = _only_key(opened)
    if form is Format.PROCESS:
        output.value(as_process(key))
        return
    for text in as_lines(key, export=form is Format.ENV):
        output.line(text)
    for opening in opened:
        output.note(f"# {safe(opening.place.path)} is {safe(opening.place.uri)} ({may(opening.place.permission)})")
    output.note(f"# The key of node {safe(key.node)} is good until {moment(key.expires * MICROSECONDS)}.")


def presign(
    path: Annotated[str, typer.Argument(help="The file.", show_default=False)],
    *,
    expires: Annotated[str, typer.Option("--expires", metavar="LIFE", help="How long it works: 15m, 1h, 1d.")] = "1h",
    json: Json = False,
) -> None:
    """Print a link to one file, signed here with your key. It dies with the key, and at once when your access ends."""
    from wio import s3  # noqa: PLC0415  - brings botocore, which help does without

    asked = life(expires)
    if asked > _LONGEST_LINK_S:
        raise BadLifetime(
            f"A link can live for 7 days at most, and {shown(expires)} is more.", todo="Give a shorter --expires."
        )
    with here.session() as session:
        opening = _opened_for(session.keys, path, asked)
    place = opening.place
    if not place.inside or place.key.endswith("/"):
        raise BadInput(
            f"{shown(path)} is a folder; a link is for one file.", todo="For folders: wio share, or wio creds --narrow."
        )
    now = int(time.time())
    left = opening.key.expires - now
    works = min(asked, left)
    if works <= 0:
        raise BadLifetime("The key ended before the link was made.", todo="Try again.")
    link = Link(
        path=path,
        url=s3.presign(opening.key, place, expires_s=works),
        expires_at=(now + works) * MICROSECONDS,
        asked_until=(now + asked) * MICROSECONDS,
        bounded=works < asked,
    )
    if json:
        output.value(link)
        return
    output.line(link.url)
    short = f", shorter than asked: your key on {safe(place.node)} ends then" if link.bounded else ""
    output.note(f"Works for {span(works)}, until {moment(link.expires_at)}{short}. It dies at once when your access ends.")


def as_lines(key: Key, *, export: bool) -> list[str]:
    """Return the variables that AWS's tools read, quoted for a shell (``export``) or a .env file."""
    variables = (
        ("AWS_ACCESS_KEY_ID", key.access_key),
        ("AWS_SECRET_ACCESS_KEY", key.secret_key),
        ("AWS_SESSION_TOKEN", key.session_token),
        ("AWS_ENDPOINT_URL_S3", key.endpoint),
        ("AWS_ENDPOINT_URL", key.endpoint),
        ("AWS_REGION", key.region),
        ("AWS_DEFAULT_REGION", key.region),
    )
    return [f"{'export ' if export else ''}{name}={shlex.quote(text)}" for name, text in variables]


def as_process(key: Key) -> Process:
    """Return the form for ``credential_process``."""
    ends = datetime.fromtimestamp(key.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Process(1, key.access_key, key.secret_key, key.session_token, ends)


def _opened_for(keys: Keys, path: str, seconds: int) -> Opening:
    """Open a path with a new key that lasts so long, or, where the node gives none, with the longest usual one."""
    from wio.credentials import LONG_LIFE_S, USUAL_LIFE_S, Wish  # noqa: PLC0415  - brings cryptography, which help does without

    wanted = max(USUAL_LIFE_S, seconds + _SLACK_S)
    for life_s in dict.fromkeys((wanted, min(wanted, LONG_LIFE_S))):
        try:
            return keys.open((path,), Wish(life_s=life_s, left_s=min(seconds, life_s - _SLACK_S)), confirmed=True)[0]
        except (BadLifetime, OverCeiling):
            continue
    return keys.open((path,), confirmed=True)[0]


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
