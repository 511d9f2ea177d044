"""``wio doctor``: looks at everything between this person and their files, with real requests, and changes nothing.

Each finding says what to do next. What is asked of the hub and of nodes is small: who am I, one key, one listing of one name.
"""

from __future__ import annotations

import os
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from protocol.api import Health, HubInfo, Node, NodeState, Person, Workspace
from protocol.checkup import Finding, Verdict, clock
from protocol.errors import BadSetting, NotSignedIn, WioError
from protocol.grants import Permission
from protocol.identity import fingerprint, from_text
from protocol.names import shown
from wio import calls, private
from wio.config import Config
from wio.connections import Connections
from wio.mc_run import find_mc
from wio.reaching import Server
from wio.session import Session

if TYPE_CHECKING:
    from wio.credentials import Opening

HUBS: Final = "hubs.json"
_AT_ONCE: Final = 8
_DAY_S: Final = 86_400
_SOON_S: Final = 3 * _DAY_S
_SIGNATURE: Final = frozenset({"SignatureDoesNotMatch", "RequestTimeTooSkewed", "AuthorizationHeaderMalformed"})


class Doctor:
    """``wall``: Unix seconds. ``only``: names of nodes to look at; empty: those on which this person has workspaces."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        only: tuple[str, ...] = (),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._environment = environment
        self._only = only
        self._wall = wall

    def findings(self) -> Iterator[Finding]:
        """Look at one thing after the other; never raises what it is there to find."""
        yield from self._settings()
        try:
            session = Session.here(self._environment)
        except WioError as error:
            yield _wrong("you", "sign-in", error)
            yield from self._tools()
            return
        with session:
            there = False
            for finding in self._hub(session):
                there = there or finding.what == "sign-in"
                yield finding
            if there:
                yield from self._nodes(session)
        yield from self._tools()

    # -------------------------------------------------------------------------------------------------- this machine

    def _settings(self) -> Iterator[Finding]:
        config = Config.here(self._environment)
        where = shown(str(config.directory))
        try:
            config.settings()
        except WioError as error:
            yield _wrong("you", "settings", error)
            return
        exposed = [
            path.name
            for path in (config.directory, *config.directory.glob("*.json"))
            if path.exists() and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077
        ]
        if exposed:
            yield Finding(
                "you",
                "settings",
                Verdict.WRONG,
                f"Others on this machine can read {', '.join(sorted(exposed))} in {where}, where your tokens and keys are.",
                f"chmod -R go= {config.directory}",
            )
        else:
            yield Finding("you", "settings", Verdict.GOOD, f"They lie in {where}, readable by you only.")
        for name in ("WIO_HUB", "WIO_TOKEN"):
            if self._environment.get(name):
                yield Finding("you", "settings", Verdict.REMARK, f"{name} is set and goes before your settings.")

    # -------------------------------------------------------------------------------------------------- the hub

    def _hub(self, session: Session) -> Iterator[Finding]:
        url = session.seat.hub
        trust = ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        connections = Connections(url, {"Accept": "application/json"}, trust)
        try:
            answer = connections.ask("GET", calls.BASE + "/hub", wait_s=10)
            health = connections.ask("GET", calls.BASE + "/health", wait_s=10)
            info = calls.decode(
                calls.hub(), url, answer.status, answer.body, content_type=answer.headers.get("Content-Type", "")
            )
            well = calls.decode(
                calls.health(), url, health.status, health.body, content_type=health.headers.get("Content-Type", "")
            )
        except WioError as error:
            yield _wrong("hub", "connection", error)
            return
        finally:
            connections.close()
        yield Finding("hub", "connection", Verdict.GOOD, f"{url} answers.")
        yield clock("hub", answer.headers.get("Date"), self._wall())
        yield self._health(well)
        yield self._version(info)
        yield self._hub_key(session, info)
        yield from self._sign_in(session)

    @staticmethod
    def _health(well: Health) -> Finding:
        if well.ok:
            return Finding("hub", "health", Verdict.GOOD, "It says that it is well.")
        sick = "; ".join(f"{name}: {said}" for name, said in well.parts.items() if said != "ok")
        return Finding("hub", "health", Verdict.WRONG, f"It says that it is not well: {sick}.", "Tell whoever runs the hub.")

    @staticmethod
    def _version(info: HubInfo) -> Finding:
        own = version("workspacesio")
        if info.version == own:
            return Finding("hub", "version", Verdict.GOOD, f"Hub and wio are both {own}.")
        todo = "If a command does not work: pip install --upgrade workspacesio"
        return Finding("hub", "version", Verdict.REMARK, f"The hub is {info.version}, wio here {own}.", todo)

    @staticmethod
    def _hub_key(session: Session, info: HubInfo) -> Finding:
        """Compare the hub's key with the one it had when this machine first looked."""
        path = session.config.directory / HUBS
        try:
            print_ = fingerprint(from_text(info.key))
            content = private.read(path)
            known: dict[str, str] = {} if content is None else msgspec.json.decode(content, type=dict[str, str])
        except (WioError, msgspec.MsgspecError, UnicodeDecodeError):
            return Finding("hub", "key", Verdict.WRONG, "What is known of its key cannot be read.", f"Remove {path}.")
        before = known.get(session.seat.hub)
        if before is None:
            private.write(
                path, msgspec.json.format(msgspec.json.encode(known | {session.seat.hub: info.key}), indent=2) + b"\n"
            )
            return Finding("hub", "key", Verdict.GOOD, f"Its key is {print_}, remembered from now on.")
        if before == info.key:
            return Finding("hub", "key", Verdict.GOOD, f"Its key is {print_}, as before.")
        return Finding(
            "hub",
            "key",
            Verdict.WRONG,
            f"Its key is {print_}, and it was {fingerprint(from_text(before))}: another hub answers at this address.",
            f"Ask whoever runs it. If it was set up anew: take its line out of {path}; nodes have to join anew, too.",
        )

    def _sign_in(self, session: Session) -> Iterator[Finding]:
        try:
            me: Person = session.client.me()
        except NotSignedIn as error:
            todo = "Unset WIO_TOKEN, or set a good one." if self._environment.get("WIO_TOKEN") else "Sign in again: wio login"
            yield Finding("you", "token", Verdict.WRONG, error.message, todo)
            return
        except WioError as error:
            yield _wrong("you", "token", error)
            return
        yield Finding("you", "sign-in", Verdict.GOOD, f"You are {me.username} at {session.seat.hub}.")
        account = session.config.account(session.seat.hub)
        if account is not None and account.token == session.seat.token:
            left = account.expires_at / 1_000_000 - self._wall()
            if left < _SOON_S:
                says = f"Your sign-in ends in {max(left, 0) / 3600:.0f} hours."
                yield Finding("you", "token", Verdict.REMARK, says, "wio login, before long jobs.")

    # -------------------------------------------------------------------------------------------------- nodes

    def _nodes(self, session: Session) -> Iterator[Finding]:
        try:
            nodes = {one.name: one for one in session.client.nodes()}
            mine = [*session.client.workspaces("mine"), *session.client.workspaces("shared")]
        except WioError as error:
            yield _wrong("hub", "nodes", error)
            return
        workspaces: dict[str, Workspace] = {}
        for one in mine:
            known = workspaces.get(one.node)
            if known is None or (known.permission is Permission.DROP and one.permission is not Permission.DROP):
                workspaces[one.node] = one
        for name in self._only:
            if name not in nodes:
                yield Finding("nodes", "name", Verdict.WRONG, f"There is no node {shown(name)}.", "wio node ls shows them.")
        chosen = [one for name, one in nodes.items() if name in self._only or (not self._only and name in workspaces)]
        if not chosen and not self._only:
            yield Finding("nodes", "list", Verdict.REMARK, "You have no workspace on any node yet.", "wio create NAME")
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for found in pool.map(lambda one: list(self._node(session, one, workspaces.get(one.name))), chosen):
                yield from found

    def _node(self, session: Session, node: Node, workspace: Workspace | None) -> Iterator[Finding]:
        part = f"node {node.name}"
        if node.state is not NodeState.ONLINE:
            yield Finding(
                part,
                "agent",
                Verdict.WRONG,
                f"Its agent is {node.state.value}: it gives no new keys, and changes of shares wait.",
                f"Tell its owner, {node.owner}: wio-agent doctor, there, says why.",
            )
        for url in node.endpoints:
            yield from Server(part if len(node.endpoints) == 1 else f"{part} at {url}", url, wall=self._wall).findings(
                session.seat.hub
            )
        if workspace is None:
            yield Finding(part, "permission", Verdict.REMARK, "You have no workspace there, so nothing more can be tried.")
            return
        path = f"{workspace.owner}/{workspace.name}/"
        try:
            [opening] = session.keys.open((path,), confirmed=True)
        except WioError as error:
            yield _wrong(part, "key", error)
            return
        yield Finding(part, "key", Verdict.GOOD, f"It gives you a key for {path.rstrip('/')}, signed by itself.")
        yield self._request(part, opening)

    @staticmethod
    def _request(part: str, opening: Opening) -> Finding:
        """Make one small request with the key: path style, signature version 4."""
        import botocore.session  # noqa: PLC0415  - slow to load, and needed for this alone
        from botocore.config import Config as Style  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

        key, place = opening.key, opening.place
        client: Any = botocore.session.Session().create_client(
            "s3",
            region_name=key.region,
            endpoint_url=key.endpoint,
            aws_access_key_id=key.access_key,
            aws_secret_access_key=key.secret_key,
            aws_session_token=key.session_token,
            config=Style(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=5,
                read_timeout=10,
                retries={"max_attempts": 1},
            ),
        )
        try:
            if place.permission is Permission.DROP:
                client.get_bucket_location(Bucket=place.bucket)
            else:
                client.list_objects_v2(Bucket=place.bucket, Prefix=place.prefix, MaxKeys=1)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _SIGNATURE:
                says = f"The storage server does not accept the signature of a request ({code})."
                todo = "If the clocks agree, a proxy in between changes Host or paths: tell the node's owner."
                return Finding(part, "signature", Verdict.WRONG, says, todo)
            says = f"The storage server refuses your key for {place.workspace} ({code})."
            return Finding(part, "permission", Verdict.WRONG, says, f"wio why YOU {place.workspace}/ asks the server why.")
        except BotoCoreError as error:
            says = f"{key.endpoint}, where its keys are for, does not answer: {error}."
            return Finding(part, "permission", Verdict.WRONG, says, "Tell the node's owner which address fails from here.")
        says = f"A request by path, signed with your key, is let in ({place.permission.value} in {place.workspace})."
        return Finding(part, "permission", Verdict.GOOD, says)

    # -------------------------------------------------------------------------------------------------- tools

    def _tools(self) -> Iterator[Finding]:
        from wio.tools.setting_up import Desk, found  # noqa: PLC0415  - brings much that the rest does without
        from wio.tools.settings import TOOLS, Files  # noqa: PLC0415

        try:
            program = find_mc(self._environment)
        except BadSetting as error:
            yield Finding("tools", "mc", Verdict.REMARK, error.message, error.todo)
        else:
            yield Finding("tools", "mc", Verdict.GOOD, f"{program}{self._told(program)}; wio mc uses it.")
        config = Config.here(self._environment)
        try:
            state = Desk(config.directory, Files.of(self._environment, Path.home(), config.directory)).state()
        except WioError as error:
            yield _wrong("tools", "settings", error)
            return
        for name, tool in TOOLS.items():
            if name == "mc":
                continue
            where = found(tool, self._environment)
            nodes = [node.name for node in state.tools.get(name, ())]
            if where:
                how = f"set up for {', '.join(nodes)}" if nodes else "not set up for your workspaces"
                todo = "" if nodes else f"wio tools setup {name}"
                yield Finding("tools", name, Verdict.GOOD, f"{where}, {how}.", todo)
            elif nodes:
                says = f"It is set up for {', '.join(nodes)}, but is not on this machine."
                yield Finding("tools", name, Verdict.REMARK, says, f"Install it, or: wio tools setup {name} --undo")

    def _told(self, program: str) -> str:
        """Return what a program says of its version, in brackets."""
        try:
            said = subprocess.run(  # noqa: S603  - a program found on PATH
                [program, "--version"], capture_output=True, text=True, timeout=10, check=False, env=dict(self._environment)
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        lines = (said.stdout or said.stderr).splitlines()
        return f" ({lines[0].strip()[:80]})" if lines else ""


def _wrong(part: str, what: str, error: WioError) -> Finding:
    return Finding(part, what, Verdict.WRONG, error.message, error.todo or "Try again in a moment.")
