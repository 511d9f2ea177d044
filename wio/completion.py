"""What may be completed: workspaces and paths, people, groups, nodes and roots, as the hub knows them just now.

A key that is pressed must not wait and must not print: whatever takes longer than ``LIMIT_S``, and whatever fails, completes
nothing. Answers are kept for ``KEPT_S``, so that keys pressed one after the other ask once.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from protocol.errors import WioError
from wio import private
from wio.session import Session

LIMIT_S: Final = 1.0
KEPT_S: Final = 5.0
MOST: Final = 500
"""Words offered at a time."""

Ask = Callable[[Session], Iterable[str]]


class _Kept(msgspec.Struct, frozen=True):
    what: str
    at: float
    words: tuple[str, ...]


def paths(incomplete: str) -> list[str]:
    """Complete ``workspace/…`` or ``owner/workspace/…``; a word that may go on ends in a slash."""
    names = _words("workspaces", _workspaces)
    inside = next((name for name in names if incomplete.startswith(name)), None)
    if inside is None:
        return _fitting(names, incomplete)
    folder = incomplete[: incomplete.rfind("/") + 1]
    return _fitting(_words(f"files {folder}", lambda session: _files(session, folder, inside)), incomplete)


def workspaces(incomplete: str) -> list[str]:
    """Complete the name of a workspace."""
    return _fitting([name.rstrip("/") for name in _words("workspaces", _workspaces)], incomplete)


def subjects(incomplete: str) -> list[str]:
    """Complete whom something may be given to: people whose workspaces one sees, groups, everyone."""
    return _fitting(_words("subjects", _subjects), incomplete)


def people(incomplete: str) -> list[str]:
    """Complete a person."""
    return [word for word in subjects(incomplete) if not word.startswith("@") and word != "public"]


def groups(incomplete: str) -> list[str]:
    """Complete ``@group``."""
    return [word for word in subjects(incomplete) if word.startswith("@")]


def nodes(incomplete: str) -> list[str]:
    """Complete a node."""
    return _fitting(_words("nodes", lambda session: [one.name for one in session.client.nodes()]), incomplete)


def roots(incomplete: str) -> list[str]:
    """Complete ``node/root``."""
    return _fitting(_words("roots", lambda session: [f"{one.node}/{one.name}" for one in session.client.roots()]), incomplete)


def _workspaces(session: Session) -> Iterable[str]:
    """Give one's own by their name alone, and everybody's, one's own too, with their owner's."""
    found = session.client.workspaces()
    own = [one.name for one in found if one.owner == session.seat.username]
    return [f"{name}/" for name in (*own, *(f"{one.owner}/{one.name}" for one in found))]


def _files(session: Session, folder: str, workspace: str) -> Iterable[str]:
    """Give what lies in a folder, beginning as ``workspace`` was written: with its owner, or without."""
    alone = workspace.count("/") == 1
    for entry in session.client.files(folder, limit=MOST).entries:
        shown = entry.path.partition("/")[2] if alone else entry.path
        yield shown.rstrip("/") + "/" if entry.folder else shown


def _subjects(session: Session) -> Iterable[str]:
    owners = dict.fromkeys(one.owner for one in session.client.workspaces())
    known = session.client.groups()
    members = dict.fromkeys(member.username for group in known for member in group.members)
    return ["public", *(f"@{group.name}" for group in known), *dict.fromkeys((*owners, *members))]


def _fitting(words: Iterable[str], incomplete: str) -> list[str]:
    return sorted({word for word in words if word.startswith(incomplete)})[:MOST]


def _words(what: str, ask: Ask) -> tuple[str, ...]:
    """Ask, in a thread that nobody waits for longer than ``LIMIT_S``."""
    answer: list[tuple[str, ...]] = []

    def work() -> None:
        try:
            with Session.here() as session:
                answer.append(_kept(session, what, ask))
        except (WioError, OSError):
            return

    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(LIMIT_S)
    return answer[0] if answer else ()


def _kept(session: Session, what: str, ask: Ask) -> tuple[str, ...]:
    path, now = _file(session), session.clock()
    try:
        kept = msgspec.json.decode(private.read(path) or b"null", type=_Kept | None)
    except msgspec.MsgspecError:
        kept = None
    if kept is not None and kept.what == what and 0 <= now - kept.at < KEPT_S:
        return kept.words
    words = tuple(ask(session))
    private.write(path, msgspec.json.encode(_Kept(what, now, words)))
    return words


def _file(session: Session) -> Path:
    who = hashlib.sha256(f"{session.seat.hub}\0{session.seat.username}".encode()).hexdigest()[:16]
    return session.config.directory / "completion" / f"{who}.json"
