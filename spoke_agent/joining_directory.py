"""Joining a hub with plain directories, and leaving: what ``wio-agent join --directory`` and its ``leave`` do.

There is no server to ask and no admin key: the agent runs the gateway. The directories are looked at and nothing in them is
touched. Run again, ``join`` may add directories or change how they are served.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from protocol.errors import AlreadyJoined, BadName, BadSetting, WioError
from protocol.identity import JoinString, label_of, public_bytes, to_text
from protocol.messages import Finding, Wishes
from protocol.names import check_bucket, check_name, shown
from spoke_agent.access.state import DirectorySettings, NodeSettings, Secrets, StorageSettings
from spoke_agent.joining import Joined, Joining, Left
from spoke_agent.link.enrol import enrol
from spoke_agent.link.line import address_of
from spoke_agent.settings import check_endpoint
from spoke_agent.storage.node import ServerFacts
from spoke_agent.storage.posix import gateway, oddities
from spoke_agent.storage.posix.exports import Export
from spoke_agent.storage.posix.posix import address
from spoke_agent.storage.posix.serving import Owner, Serving

KIND: Final = "directory"
LOCAL: Final = "127.0.0.1"
EVERYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
_NOT_IN_BUCKETS: Final = re.compile(r"[^a-z0-9.-]+")


class WantedDirectory(msgspec.Struct, frozen=True):
    """What the owner asks for. What is None or empty stays as it was, or as it is by default. ``repr`` shows no join string."""

    join: str
    directories: tuple[str, ...]
    buckets: tuple[str, ...] = ()
    """Names for the first so many directories."""
    name: str = ""
    public_endpoints: tuple[str, ...] = ()
    listen: tuple[str, int] | None = None
    """Host and port; port 0: any free one, which is then kept."""
    owner: Owner | None = None
    file_mode: int | None = None
    dir_mode: int | None = None
    certificate: str = ""
    certificate_key: str = ""
    insecure: bool = False
    region: str = "us-east-1"
    accept_oddities: bool = False
    """The owner has seen what is dangerous to serve in the directories: the rest is to be served."""

    def __repr__(self) -> str:
        return f"WantedDirectory({', '.join(self.directories)})"


class DirectoryJoining(Joining):
    """The steps for a directory node."""

    async def join_directory(self, wanted: WantedDirectory) -> Joined:
        """Join, or change what a node that has joined serves. The caller holds the state directory's lock.

        Raises BadName, BadJoinString, BadSetting, BadEndpoint, AlreadyJoined, StorageUnreachable, HubUnreachable, or what the
        hub refuses with; then everything is as it was.
        """
        if wanted.name:
            check_name(wanted.name, "node")
        there = self._state.settings() if self._state.has_settings else None
        joined = there is not None and there.node != 0
        join = JoinString.parse(wanted.join, 0 if joined else self._clock() // 1_000_000)
        address_of(join.hub_url, insecure=wanted.insecure)
        before = self._check_same_kind(there, join)
        gateway.check_version(gateway.find(os.environ))
        exports = exports_of(wanted, before.exports if before is not None else (), self._state.path)
        if not wanted.accept_oddities:
            known = {export.directory for export in before.exports} if before is not None and joined else set()
            for export in exports:
                if export.directory not in known:
                    await self._refuse_oddities(export)
        serving = serving_of(wanted, before.serving if before is not None else None)
        settings, keys = self._settled(wanted, there, join, DirectorySettings(exports, serving))
        former = (there, self._state.secrets()) if there is not None and joined else None
        try:
            self._state.keep_secrets(keys)
            self._state.keep_settings(settings)
            facts = await self._probe(settings, keys)
            _check_owner(serving, facts)
            if joined:
                self._state.keep_facts(facts)
                self._state.make_ceiling()
                return self._said(settings, facts, ())
            wishes = Wishes(wanted.name, KIND)
            welcome = await enrol(join, keys.node_key, wishes, nonce=self._chance(32), insecure=wanted.insecure)
        except WioError as error:
            if former is not None:
                self._state.keep_settings(former[0])
            elif not error.retry:
                await self._clear(settings, keys)
                self._state.forget()
            raise
        settings = msgspec.structs.replace(settings, node=welcome.node, name=welcome.name)
        self._state.keep_settings(settings)
        self._state.keep_facts(facts)
        self._state.make_ceiling()
        return self._said(settings, facts, self._made(settings, exports))

    async def leave_directory(self) -> Left:
        """Remove everything wio made, here and in the directories; files stay as they are. The caller holds the lock."""
        there = self._state.settings()
        removed = await self._clear(there, self._state.secrets())
        removed += [f"{self._state.path / name}" for name in self._state.forget()]
        return Left(there.name, tuple(removed), f"The hub still lists the node as offline: wio node evict {there.name}.")

    # -------------------------------------------------------------------------------------------------- steps

    def _check_same_kind(self, there: NodeSettings | None, join: JoinString) -> DirectorySettings | None:
        if there is None:
            return None
        other = "Give this node another state directory: --state DIR."
        if there.hub_key != to_text(join.hub_key):
            raise AlreadyJoined(f"{self._state.path} belongs to node {there.name} of {there.hub_url}, another hub.", todo=other)
        if there.storage.directory is None:
            raise AlreadyJoined(
                f"{self._state.path} belongs to node {there.name}, whose storage server is {there.storage.url}.", todo=other
            )
        return there.storage.directory

    def _settled(
        self, wanted: WantedDirectory, there: NodeSettings | None, join: JoinString, directory: DirectorySettings
    ) -> tuple[NodeSettings, Secrets]:
        keys = self._state.secrets() if self._state.has_secrets() else Secrets(self._chance(32), self._chance(32))
        if not keys.storage_secret:
            keys = Secrets(keys.node_seed, keys.master, self._chance(30).hex())
        label = there.storage.label if there is not None else wanted.name or label_of(public_bytes(keys.node_key))
        access_key = there.storage.access_key if there is not None else f"wio{self._chance(12).hex()}"
        url = address(directory.serving)
        before = there.storage.public_endpoints if there is not None else ()
        endpoints = tuple(check_endpoint(one) for one in wanted.public_endpoints)
        if not endpoints and there is not None and before != (there.storage.url,):
            endpoints = before
        if not endpoints and directory.serving.host in EVERYWHERE:
            raise BadSetting(
                "The gateway is to listen on all addresses of this machine; people need one of them.",
                todo="Say which: --public-endpoint http://HOST:PORT.",
            )
        storage = StorageSettings(KIND, url, access_key, endpoints or (url,), label, directory.serving.region, directory)
        node, name = (there.node, there.name) if there is not None else (0, wanted.name or label)
        return NodeSettings(join.hub_url, to_text(join.hub_key), name, storage, node, wanted.insecure), keys

    async def _refuse_oddities(self, export: Export) -> None:
        found = await asyncio.to_thread(oddities.find, Path(export.directory))
        refused = [one for one in found.found if one.refused]
        if refused:
            what = "; ".join(f"{one.count} {one.what} ({', '.join(one.samples[:3])})" for one in refused)
            raise BadSetting(
                f"{export.directory} holds what is dangerous to serve: {what}.",
                todo="Move it away; or join with --accept-oddities, and it is served to nobody once a scan has found it.",
            )

    def _made(self, settings: NodeSettings, exports: Sequence[Export]) -> tuple[str, ...]:
        url = settings.storage.public_endpoints[0]
        local = settings.storage.directory is not None and settings.storage.directory.serving.host == LOCAL
        far = " Only this machine reaches it: --listen HOST:PORT opens it to others." if local else ""
        return (
            *(f"Bucket {export.bucket}: {export.directory}, where nothing was changed." for export in exports),
            f"On this machine: a gateway that serves them at {url} while the agent runs.{far}",
            f"On this machine: {self._state.path}, with the node's keys (node.key) and your limits (ceiling.toml).",
            f"On the hub: node {settings.name}.",
        )


def exports_of(wanted: WantedDirectory, before: Sequence[Export], state: Path) -> tuple[Export, ...]:
    """Return what is served from now on: what was, and what the owner adds. Raises BadSetting, BadName."""
    if len(wanted.buckets) > len(wanted.directories):
        raise BadSetting("There are more --bucket than --directory.", todo="Give one --bucket for each directory, or none.")
    found = {export.bucket: export.directory for export in before}
    by_directory = {export.directory: export.bucket for export in before}
    for number, given in enumerate(wanted.directories):
        directory = str(Path(given).expanduser().absolute())
        _check_directory(Path(directory))
        named = wanted.buckets[number] if number < len(wanted.buckets) else by_directory.get(directory) or bucket_for(directory)
        if by_directory.get(directory, named) != named:
            raise BadSetting(f"{directory} is bucket {by_directory[directory]} already, and a bucket is never renamed.")
        if found.get(check_bucket(named), directory) != directory:
            raise BadSetting(
                f"Bucket {named} is {found[named]} already.", todo=f"Give {directory} another name: --bucket NAME."
            )
        found[named] = by_directory[directory] = directory
        by_directory[directory] = named
    exports = tuple(Export(bucket, directory) for bucket, directory in found.items())
    _check_apart(exports, state)
    return exports


def bucket_for(directory: str) -> str:
    """Return a bucket name made of a directory's last part. Raises BadName where nothing can be made of it."""
    name = _NOT_IN_BUCKETS.sub("-", Path(directory).name.lower()).strip("-.")[:63].strip("-.")
    while ".." in name:
        name = name.replace("..", ".")
    if len(name) < 3:  # noqa: PLR2004 - S3's shortest bucket name
        name = f"{name or 'data'}-dir"
    try:
        return check_bucket(name)
    except BadName as error:
        raise BadName(f"No bucket name can be made of {shown(directory)}.", todo="Give one: --bucket NAME.") from error


def _check_directory(directory: Path) -> None:
    try:
        if not directory.is_dir():
            raise BadSetting(f"{directory} is no directory.", todo="Is its file system mounted?")
        next(iter(directory.iterdir()), None)
    except OSError as error:
        raise BadSetting(f"{directory} cannot be read: {error.strerror}.", todo="Run the agent as somebody who may.") from error


def _check_apart(exports: Sequence[Export], state: Path) -> None:
    """No directory may lie in another, and the agent's own state in none: it holds the keys."""
    real = {export.directory: Path(export.directory).resolve() for export in exports}
    own = state.resolve()
    for one, path in real.items():
        if own.is_relative_to(path) or path.is_relative_to(own):
            raise BadSetting(f"{one} and the agent's state directory {state} lie in one another.", todo="Give another --state.")
        for other, elsewhere in real.items():
            if other != one and path.is_relative_to(elsewhere):
                raise BadSetting(f"{one} lies in {other}.", todo="Serve the outer one alone: a root can be a folder of it.")


def serving_of(wanted: WantedDirectory, before: Serving | None) -> Serving:
    """Return how the gateway is to run: as the owner says, else as it was, else on a free port of this machine only."""
    if bool(wanted.certificate) != bool(wanted.certificate_key):
        raise BadSetting("A TLS certificate and its key belong together.", todo="Give both --tls-cert and --tls-key.")
    for path in (wanted.certificate, wanted.certificate_key):
        if path and not Path(path).is_file():
            raise BadSetting(f"{path} is no file.", todo="Give --tls-cert and --tls-key as PEM files.")
    host, port = wanted.listen or ((before.host, before.port) if before is not None else (LOCAL, 0))
    if port == 0:
        port = gateway.free_port(host)
    elif before is None or (host, port) != (before.host, before.port):
        gateway.check_free(host, port)
    found = before or Serving(host, port, wanted.region)
    tls = [str(Path(path).absolute()) for path in (wanted.certificate, wanted.certificate_key) if path]
    return msgspec.structs.replace(
        found,
        host=host,
        port=port,
        owner=wanted.owner if wanted.owner is not None else found.owner,
        file_mode=found.file_mode if wanted.file_mode is None else wanted.file_mode,
        dir_mode=found.dir_mode if wanted.dir_mode is None else wanted.dir_mode,
        certificate=tls[0] if tls else found.certificate,
        certificate_key=tls[1] if tls else found.certificate_key,
    )


def _check_owner(serving: Serving, facts: ServerFacts) -> None:
    """Raise BadSetting where files cannot be given to the owner they are meant for: then nobody could upload one."""
    for line in facts.probes:
        if serving.owner is not None and line.capability == "owner-of-files" and line.found is Finding.NO:
            raise BadSetting(line.detail, todo="Run join and the agent with that right, or join without --owner.")


def place(text: str) -> tuple[str, int] | None:
    """Read ``HOST:PORT``; None where nothing is said. Raises BadSetting."""
    if not text:
        return None
    try:
        parts = urlsplit(f"//{text}")
        if parts.hostname and parts.port is not None and not parts.path and not parts.username:
            return parts.hostname, parts.port
    except ValueError:
        pass
    raise BadSetting(f"{shown(text)} is not an address and a port, such as 127.0.0.1:9000.")


def owner(text: str) -> Owner | None:
    """Read ``UID:GID`` as numbers; None where nothing is said. Raises BadSetting."""
    if not text:
        return None
    uid, _, gid = text.partition(":")
    if not (uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit() and len(text) < 24):  # noqa: PLR2004 - two ids
        raise BadSetting(f"{shown(text)} is not an owner.", todo="Give the numbers of a user and a group: --owner 1000:1000.")
    return Owner(int(uid), int(gid))


def mode(text: str) -> int | None:
    """Read an octal mode such as ``0640``; None where nothing is said. Raises BadSetting."""
    if not text:
        return None
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise BadSetting(f"{shown(text)} is not a mode.", todo="Give three octal digits, such as 0640.")
    return int(text, 8)
