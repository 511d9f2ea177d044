"""``wio-agent roots suggest``: what roots and workspaces a directory could be, told from how it looks. Only looks.

People lay out their trees in a few ways: a folder for each person, a folder for each project, or a few folders that hold
those. What is proposed is a file that its owner edits; nothing here decides anything.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from protocol.api import RootKind
from protocol.errors import BadInput, BadName, WioError
from protocol.names import MAX_NAME, check_name, check_prefix, shown
from protocol.plan import Plan, PlannedRoot
from spoke_agent.storage.posix import oddities
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.walking import BESIDE, Request, Walk, hidden, parts_of

_FOR_PERSONS: Final = "home homes users people members staff students"
_FOR_PROJECTS: Final = "project projects group groups lab labs studies experiments data datasets"
HOLDERS: Final = frozenset((_FOR_PERSONS + " " + _FOR_PROJECTS).split())
"""Folders that hold a folder for each person or project, rather than being one."""
FILES: Final = 2_000_000
"""Files counted, at most."""
FOLDERS: Final = 1_000
"""Workspaces proposed for one directory, at most."""
_MARKS: Final = frozenset({"dataset_description.json", ".git", ".datalad", "DICOMDIR", "Snakefile", "pyproject.toml"})
"""What lies at the top of something that is one whole."""


class Candidate(msgspec.Struct):
    """A folder that could be a workspace, and what was found in it."""

    folder: str
    name: str
    owner: str = ""
    """Whose it seems to be: a folder of ``home``, or whom it belongs to on disk, where that could be a user name of wio's."""
    files: int = 0
    bytes: int = 0
    newest_ns: int = 0
    problem: str = ""
    """Why it cannot be a workspace as it is."""


class Suggestion(msgspec.Struct, frozen=True):
    """What was found in one directory."""

    export: Export
    candidates: tuple[Candidate, ...]
    loose: int
    """Files that lie in none of them."""
    whole: bool
    """All files were counted."""
    odd: oddities.Oddities


def suggest(export: Export, *, named: Callable[[int], str] | None = None) -> Suggestion:
    """Look through a directory and propose. Raises BadInput where it cannot be listed. ``named`` gives a user's name."""
    top = Path(export.directory)
    try:
        candidates = _candidates(top, named or _user)
        found = _counted(top, candidates)
        odd = oddities.find(top, FILES, [one.folder for one in candidates])
    except OSError as error:
        raise BadInput(f"{export.directory} cannot be looked through: {error.strerror}.") from error
    return Suggestion(export, tuple(candidates), found[0], found[1], odd)


def write(suggestions: Sequence[Suggestion], node: str) -> Iterator[str]:
    """Yield the lines of the file that the owner edits."""
    yield "# Roots and workspaces for folders that are there already. Nothing has been made or changed yet."
    yield "#"
    yield "# Edit this file: delete what should not be a workspace, rename, say whose it is. Then try it, and then do it:"
    yield "#   wio-agent roots apply FILE --dry-run        on this machine: also looks at the folders"
    yield "#   wio-agent roots apply FILE                  hands over to wio, as the person who is logged in"
    yield "# It can be applied again after more editing: what is there already stays as it is."
    yield ""
    yield f"node = {_quoted(node)}" if node else 'node = ""      # the name of your node'
    for number, suggestion in enumerate(suggestions):
        yield from _root(suggestion, {one.export.bucket for one in suggestions[:number]})


def check_against(plan: Plan, exports: Exports) -> list[str]:
    """Compare a plan with the tree. Returns what is wrong, in sentences; nothing where it fits."""
    wrong = []
    for root in plan.roots:
        try:
            top = exports.directory(root.bucket)
        except WioError as error:
            wrong.append(f"{error.message} {error.todo}")
            continue
        for folder, what in _folders_of(root):
            try:
                problem = _problem(top, folder)
            except OSError as error:
                problem = error.strerror or "it cannot be looked at"
            if problem:
                wrong.append(f"{what}: {shown(folder)} in {top}: {problem}.")
    return wrong


def _folders_of(root: PlannedRoot) -> Iterator[tuple[str, str]]:
    if root.prefix:
        yield root.prefix, f"Root {root.name}"
    for workspace in root.workspaces:
        yield root.prefix + workspace.folder, f"Workspace {workspace.name}"


def _problem(top: Path, folder: str) -> str:
    """Say why a folder of the tree cannot be a workspace; empty: it can."""
    parts = parts_of(folder)
    if parts is None:
        return "a name that is not served"
    at = top
    for part in parts:
        at /= part
        if at.is_symlink():
            return "a link: nobody would be given what it leads to"
        if not at.exists():
            return "it is not there"
        if not at.is_dir():
            return "it is a file"
    return "" if os.access(at, os.R_OK | os.X_OK) else "this user may not list it"


# ------------------------------------------------------------------------------------------------------ looking


def _candidates(top: Path, named: Callable[[int], str]) -> list[Candidate]:
    found: list[Candidate] = []
    for name in _folders(top):
        inside = _folders(top / name) if name.lower() in HOLDERS and not _is_one(top / name) else []
        folders = [f"{name}/{one}/" for one in inside] if len(inside) > 1 else [f"{name}/"]
        found += [_candidate(top, folder, named) for folder in folders]
    del found[FOLDERS:]
    taken: set[tuple[str, str]] = set()
    for one in found:
        first, number = one.name, 2
        while (one.owner, one.name) in taken:
            one.name = f"{first[: MAX_NAME - 5].rstrip('.-_')}-{number}"
            number += 1
        taken.add((one.owner, one.name))
    return found


def _folders(top: Path) -> list[str]:
    try:
        with os.scandir(top) as listing:
            names = [one.name for one in listing if one.is_dir(follow_symlinks=False)]
    except PermissionError:
        return []
    return sorted(name for name in names if not name.startswith(".") and not hidden(name) and name != BESIDE)


def _is_one(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def _candidate(top: Path, folder: str, named: Callable[[int], str]) -> Candidate:
    one = Candidate(folder, _name(folder))
    try:
        check_prefix(folder)
        one.problem = _problem(top, folder)
        holder, _, last = folder[:-1].rpartition("/")
        home = _owner(last) if holder.lower() in _FOR_PERSONS.split() else ""
        one.owner = home or _owner(named((top / folder).lstat().st_uid))
    except (BadName, OSError) as error:
        one.problem = error.message if isinstance(error, BadName) else "it cannot be looked at"
    return one


def _name(folder: str) -> str:
    """Return a name of wio's that is as near as can be to that of a folder."""
    last = folder.removesuffix("/").rpartition("/")[2].encode("utf-8", "replace").decode()
    plain = unicodedata.normalize("NFKD", last.replace("ß", "ss")).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[-]{2,}", "-", re.sub(r"[.]{2,}", ".", re.sub(r"[^a-z0-9._-]+", "-", plain))).strip("-._")[:MAX_NAME]
    try:
        return check_name(plain.rstrip("-._"), "workspace")
    except BadName:
        return f"ws-{plain.strip('-._')}"[:MAX_NAME].rstrip("-._")


def _owner(user: str) -> str:
    try:
        return check_name(user, "user")
    except BadName:
        return ""


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


def _counted(top: Path, candidates: Sequence[Candidate]) -> tuple[int, bool]:
    """Count what lies in each candidate; return how many files lie in none, and whether all were counted."""
    by_folder = {one.folder: one for one in candidates}
    loose = counted = 0
    for page in Walk(Request(str(top))).pages():
        for key, size, mtime, _ in page:
            first = key.find("/") + 1
            one = by_folder.get(key[:first]) or by_folder.get(key[: key.find("/", first) + 1])
            if one is None:
                loose += 1
                continue
            one.files += 1
            one.bytes += size
            one.newest_ns = max(one.newest_ns, mtime)
        counted += len(page)
        if counted >= FILES:
            return loose, False
    return loose, True


# ------------------------------------------------------------------------------------------------------ writing


def _root(suggestion: Suggestion, taken: set[str]) -> Iterator[str]:
    export = suggestion.export
    yield ""
    yield f"# {_plain(export.directory)}"
    if not suggestion.whole:
        yield f"# Only the first {FILES:,} files were counted."
    if suggestion.loose:
        yield f"# {suggestion.loose:,} files lie in none of the folders below: nobody but you will find them."
    for one in suggestion.odd.found:
        yield f"# {'NOT SERVED: ' if one.refused else ''}{one.count:,} {one.what}: {', '.join(one.samples[:3])}"
    yield "[[root]]"
    name = _name(export.bucket)
    yield f"name = {_quoted(name if name not in taken else _name(export.bucket + '-dir'))}"
    yield f"bucket = {_quoted(export.bucket)}"
    kinds = f"{RootKind.UNMANAGED_PUBLIC.value}: everyone may read all of it"
    yield f"kind = {_quoted(RootKind.UNMANAGED_PRIVATE.value)}      # or {kinds}"
    yield 'level = "names"      # or metadata, content: how much the hub may know of the files'
    for candidate in suggestion.candidates:
        yield from _workspace(candidate)
    if not suggestion.candidates:
        yield "# There is no folder in it that could be a workspace: make one and move files there, or serve the folder above."


def _workspace(one: Candidate) -> Iterator[str]:
    newest = dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=max(one.newest_ns, 0) // 1000)
    said = f"{one.files:,} files, {one.bytes:,} bytes" + (f", newest of {newest:%Y-%m-%d}" if one.files else "")
    off = "# " if one.problem else ""
    yield ""
    yield f"# {said}"
    if one.problem:
        yield f"# It cannot be a workspace as it is: {_plain(one.problem)}"
    yield f"{off}[[root.workspace]]"
    yield f"{off}name = {_quoted(one.name)}"
    yield f"{off}folder = {_quoted(one.folder)}"
    if one.owner:
        yield f"# owner = {_quoted(one.owner)}      # whose it seems to be; without the # in front it is handed over"


def _quoted(text: str) -> str:
    """Return a TOML string: JSON's, but for one character."""
    safe = text.encode("utf-8", "replace").decode()
    return json.dumps(safe, ensure_ascii=not safe.isprintable()).replace("\x7f", "\\u007f")


def _plain(text: str) -> str:
    return shown(text, 300)[1:-1]
