"""The agent's state directory: who this node is, what it holds, and the lock that one process at a time has.

    node.key        node seed, master secret, the agent's own storage secret: the one file whose loss or theft matters
    node.json       which hub (its pinned key), which node, which storage server
    ceiling.toml    the owner's file; only ever written once, when joining
    grants.sqlite   grant sets, holders, keys that are out (``principals``)
    index.sqlite    snapshot and journal (``spoke_agent.index``)
    probe.json      what the storage server can do, as last tried
    paused          there while the owner has everybody cut off
    agent.lock      held by the process that uses the directory
    control.sock    where that process listens to its owner
    gateway/        of a directory node: the gateway's accounts, policies and notes (``spoke_agent.storage.posix``)

The directory is 0700, every file 0600. Files are replaced whole: written beside, synced, renamed.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Annotated, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from protocol.errors import AlreadyJoined, BadMessage, BadSetting, DiskFull, NotFound
from protocol.identity import fingerprint, from_text, new_key, public_bytes, public_key, to_text
from spoke_agent.access.ceiling import TEMPLATE
from spoke_agent.storage.node import ServerFacts
from spoke_agent.storage.posix.exports import Export
from spoke_agent.storage.posix.serving import Serving

KEY_BYTES: Final = 32

_FILES: Final = (
    "control.sock",
    "paused",
    "probe.json",
    "grants.sqlite",
    "grants.sqlite-wal",
    "grants.sqlite-shm",
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "ceiling.toml",
    "node.json",
    "node.key",
    "agent.lock",
)
"""Everything an agent makes in its directory; the keys go last, as long as anything else needs them."""

_NEEDED: Final = ("node.key", "node.json", "grants.sqlite", "index.sqlite")

Key = Annotated[str, msgspec.Meta(min_length=43, max_length=43)]
Text = Annotated[str, msgspec.Meta(max_length=500)]


class Secrets(msgspec.Struct, frozen=True):
    """What nobody else may know. ``repr`` shows nothing of it."""

    node_seed: bytes
    master: bytes
    storage_secret: str = ""

    def __repr__(self) -> str:
        return "Secrets()"

    @property
    def node_key(self) -> Ed25519PrivateKey:
        """The node's key pair."""
        return new_key(self.node_seed)


class DirectorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which directories a directory node serves, and how."""

    exports: Annotated[tuple[Export, ...], msgspec.Meta(min_length=1, max_length=100)]
    serving: Serving


class StorageSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which storage server, and as whom. Its secret lies in the key file."""

    kind: Text
    url: Text
    access_key: Text
    public_endpoints: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=8)]
    label: Text
    """What this node's things on the server are named after (``spoke_agent.storage.placing``); never changes."""
    region: Text = "us-east-1"
    directory: DirectorySettings | None = None
    """Of a directory node; ``url`` and ``access_key`` are then its gateway's."""


class NodeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who this node is. ``hub_key`` is the pinned key, base64url; ``node`` is 0 until the hub has taken it in."""

    hub_url: Text
    hub_key: Key
    name: Text
    storage: StorageSettings
    node: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    insecure: bool = False

    @property
    def pinned(self) -> Ed25519PublicKey:
        """The hub's key."""
        return public_key(from_text(self.hub_key))


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    what: str
    node_seed: Key
    master: Key
    storage_secret: Text


class StateDirectory:
    """One state directory. ``path`` is made when something is first written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    # -------------------------------------------------------------------------------------------------- life

    def prepare(self) -> None:
        """Make the directory, for its owner alone. Raises BadSetting."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                raise BadSetting(
                    f"The state directory {self.path} belongs to another user.", todo="Run wio-agent as that user."
                )
            self.path.chmod(0o700)
        except OSError as error:
            raise _explained(error, self.path) from error

    def lock(self) -> None:
        """Take the directory for this process; raise AlreadyJoined where another agent has it."""
        if self._lock is not None:
            return
        try:
            held = os.open(self.path / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _explained(error, self.path) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(held)
            raise AlreadyJoined(
                f"Another wio-agent uses the state directory {self.path}.",
                todo="Stop that one first, or give this one another directory: --state DIR.",
            ) from error
        self._lock = held

    def unlock(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # -------------------------------------------------------------------------------------------------- who

    @property
    def joined(self) -> bool:
        """Whether a hub has taken this node in."""
        return self.has_settings and self.settings().node != 0

    @property
    def has_settings(self) -> bool:
        """Whether joining has at least begun here."""
        return (self.path / "node.json").exists()

    def settings(self) -> NodeSettings:
        """Return who this node is; raise NotFound where nothing has joined, BadSetting for a damaged file."""
        try:
            return msgspec.json.decode(self._read("node.json"), type=NodeSettings)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadSetting(
                f"{self.path / 'node.json'} cannot be read: {error}.", todo="Restore it, or join again."
            ) from error

    def keep_settings(self, settings: NodeSettings) -> None:
        """Write who this node is."""
        self.write("node.json", msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n")

    def secrets(self) -> Secrets:
        """Return the secrets; raise NotFound or BadSetting."""
        try:
            file = msgspec.json.decode(self._read("node.key"), type=_KeyFile)
            return Secrets(from_text(file.node_seed), from_text(file.master), file.storage_secret)
        except (msgspec.MsgspecError, UnicodeDecodeError, BadMessage):
            # Without the cause: it would quote what is in the file.
            raise BadSetting(f"{self.path / 'node.key'} is damaged.", todo="Restore it from a copy, or join again.") from None

    def keep_secrets(self, secrets: Secrets) -> None:
        """Write the key file."""
        what = "The keys of this wio node. Keep a copy in a safe place; show it to nobody."
        file = _KeyFile(what, to_text(secrets.node_seed), to_text(secrets.master), secrets.storage_secret)
        self.write("node.key", msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")

    def has_secrets(self) -> bool:
        """Whether there is a key file."""
        return (self.path / "node.key").exists()

    def node_fingerprint(self) -> str:
        """Return the short form of this node's public key."""
        return fingerprint(public_bytes(self.secrets().node_key))

    # -------------------------------------------------------------------------------------------------- the owner's

    def ceiling_text(self) -> str:
        """Return the ceiling file; the one ``join`` writes where there is none."""
        try:
            return (self.path / "ceiling.toml").read_text(encoding="utf-8")
        except FileNotFoundError:
            return TEMPLATE
        except (OSError, UnicodeDecodeError) as error:
            raise BadSetting(f"The ceiling file {self.path / 'ceiling.toml'} cannot be read: {error}.") from error

    def ceiling_stamp(self) -> tuple[int, int]:
        """Return something that changes when the ceiling file does."""
        try:
            found = (self.path / "ceiling.toml").stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def make_ceiling(self) -> None:
        """Write the ceiling file with its comments, unless the owner has one."""
        if not (self.path / "ceiling.toml").exists():
            self.write("ceiling.toml", TEMPLATE.encode())

    @property
    def paused(self) -> bool:
        """Whether the owner has everybody cut off. Fails closed: where it cannot be told, yes."""
        try:
            (self.path / "paused").lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def set_paused(self, *, paused: bool) -> None:
        """Remember that everybody is cut off, or no longer."""
        if paused:
            self.write("paused", b"Everybody is cut off until: wio-agent resume\n")
            return
        (self.path / "paused").unlink(missing_ok=True)
        self._sync_directory()

    # -------------------------------------------------------------------------------------------------- files

    def facts(self) -> ServerFacts | None:
        """Return what the last probe found; None where it is not known."""
        try:
            return msgspec.json.decode((self.path / "probe.json").read_bytes(), type=ServerFacts)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def keep_facts(self, facts: ServerFacts) -> None:
        """Write down what a probe found, so that the next start need not wait for one."""
        self.write("probe.json", msgspec.json.encode(facts))

    def missing(self) -> str:
        """Return the first of the files that an agent cannot do without that is not there any more; empty where all are."""
        for name in _NEEDED:
            try:
                (self.path / name).lstat()
            except FileNotFoundError:
                return name
            except OSError:
                return ""  # it cannot be told, as on a disk that does not answer
        return ""

    def claim(self, name: str) -> None:
        """Make a file, for its owner alone, unless it is there: before somebody else makes it with other rights."""
        try:
            os.close(os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise _explained(error, self.path / name) from error

    def write(self, name: str, body: bytes) -> None:
        """Replace a file as a whole, for good. Raises DiskFull or BadSetting; then the old one is as it was."""
        beside = self.path / f".{name}.new"
        try:
            beside.unlink(missing_ok=True)
            handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path / name)
            self._sync_directory()
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise _explained(error, self.path / name) from error

    def forget(self) -> list[str]:
        """Remove every file an agent makes here, and nothing else; return their names."""
        gone = []
        for name in _FILES:
            if (self.path / name).exists():
                (self.path / name).unlink()
                gone.append(name)
        return gone

    def _read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(
                f"No node has joined in {self.path}.", todo="Join first: wio-agent join, or say where: --state DIR."
            ) from error
        except OSError as error:
            raise _explained(error, self.path / name) from error

    def _sync_directory(self) -> None:
        handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _explained(error: OSError, path: Path) -> DiskFull | BadSetting:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
        return DiskFull(f"{path} could not be written: {error.strerror}.", todo="Make room on that disk.")
    return BadSetting(f"{path} cannot be used: {error.strerror}.", todo="Check who owns that folder.")
