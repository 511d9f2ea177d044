"""Finding changes by looking again and again, where the kernel does not report them. Blocking; knows no clock.

Of every folder its content is remembered as one number, of a folder that has others in it as one for each file: its files
are then told one by one, as "this folder" would mean everything below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from spoke_agent.storage.posix.walking import Request, Row, Walk

Content = int | dict[str, int]
MAX_TOLD = 5_000
"""Files of one folder remembered one by one."""


class Snapshot(msgspec.Struct, frozen=True):
    """What lay in a directory: for every folder with files in it, what they were."""

    folders: Mapping[str, Content]


def snapshot(asked: Request) -> Snapshot:
    """Walk through a directory. Raises OSError."""
    open_folders: dict[str, dict[str, int]] = {}
    parents = {""}
    done: dict[str, Content] = {"": {}}

    def leave(folders: list[str]) -> None:
        for folder in folders:
            files = open_folders.pop(folder)
            single = folder in parents and len(files) <= MAX_TOLD
            done[folder] = files if single else hash(frozenset(files.items()))

    for page in Walk(asked).pages():
        for row in page:
            folder = row[0][: row[0].rfind("/") + 1]
            files = open_folders.get(folder)
            if files is None:
                files = open_folders[folder] = {}
                parents.update(_above(folder))
            files[row[0][len(folder) :]] = _number(row)
        # A walk in order never comes back to a folder that it has left.
        leave([folder for folder in open_folders if not page[-1][0].startswith(folder)])
    leave(list(open_folders))
    return Snapshot(done)


def changes(before: Snapshot, after: Snapshot) -> tuple[list[str], list[str]]:
    """Return (keys, folders) where the two differ; no folder lies in another, and no key in a folder."""
    keys: list[str] = []
    folders: list[str] = []
    for folder in before.folders.keys() | after.folders.keys():
        old, new = before.folders.get(folder), after.folders.get(folder)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            keys += [folder + name for name in old.keys() | new.keys() if old.get(name) != new.get(name)]
        else:
            folders.append(folder)
    top = _tops(folders)
    chosen = set(top)
    return sorted(key for key in keys if not _covered(key, chosen)), top


def _above(folder: str) -> Iterator[str]:
    at = folder.find("/")
    while 0 <= at < len(folder) - 1:
        yield folder[: at + 1]
        at = folder.find("/", at + 1)


def _number(row: Row) -> int:
    return hash(row[1:])


def _tops(folders: Sequence[str]) -> list[str]:
    tops: list[str] = []
    for folder in sorted(folders):
        if not (tops and folder.startswith(tops[-1])):
            tops.append(folder)
    return tops


def _covered(key: str, folders: set[str]) -> bool:
    at = -1
    while True:
        if key[: at + 1] in folders:
            return True
        at = key.find("/", at + 1)
        if at < 0:
            return False
