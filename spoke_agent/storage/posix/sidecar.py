"""What the gateway keeps beside the tree, in its sidecar folder: etags and checksums of files, and a bucket's access list.

The gateway knows only files that came through it. One that was put there from outside has no etag, so ``If-None-Match: *``
would overwrite it; one that came through it and was edited on disk afterwards keeps the etag and checksum of what it was,
so that clients call it broken. Both are set right here, and in no other place. Blocking I/O; never touches the tree, but for
what the gateway itself left in it (``clean``).

How it is known whether an etag is that of the file as it lies there, without a third place to note it:

- one of ours says so itself: it is made of inode, ctime and size (``walking.etag_of``);
- one of the gateway's that was looked at before is *sealed*: its file may not be written, and has the file's ctime as its
  own mtime. The gateway never changes such a file, it puts a new one in its place;
- one of the gateway's that is new was written just before the file appeared under its name (measured: the ctime is less than
  a millisecond later), and after its content was.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from protocol.names import check_bucket
from spoke_agent.storage.posix import walking
from spoke_agent.storage.posix.policies import ATTRIBUTES
from spoke_agent.storage.posix.walking import BESIDE, TEMPORARY

ACL: Final = "acl"
ETAG: Final = "etag"
STALE: Final = ("checksums", "mp-metadata")
"""What speaks of the bytes of a file: its checksums, and where the parts it was uploaded in end."""
APPEARS_NS: Final = 2_000_000_000
"""A file that came through the gateway appears under its name so soon after its etag was written."""
UPLOADS: Final = "multipart"

_LARGEST: Final = 1024
_SEALED: Final = 0o400


class Verdict(enum.StrEnum):
    """What an etag in the sidecar is to the file as it lies there."""

    NONE = "none"
    """There is no etag."""
    OURS = "ours"
    """Written here, and right."""
    SEALED = "sealed"
    """The gateway's, looked at before, and right."""
    FRESH = "fresh"
    """The gateway's, not looked at before, and right as far as can be told."""
    STALE = "stale"
    """Of an older content."""


class _Kept(msgspec.Struct, frozen=True):
    etag: str
    sealed: bool
    at_ns: int


def judge(kept_etag: str, sealed: bool, at_ns: int, found: os.stat_result, ours: str) -> Verdict:
    """Say what a kept etag is to a file. ``at_ns`` is the mtime of the etag's own file. Pure."""
    if kept_etag == ours:
        return Verdict.OURS
    if kept_etag.startswith("wio-"):
        return Verdict.STALE
    if sealed:
        return Verdict.SEALED if at_ns == found.st_ctime_ns else Verdict.STALE
    appeared = found.st_ctime_ns <= at_ns + APPEARS_NS and found.st_mtime_ns <= at_ns
    return Verdict.FRESH if appeared else Verdict.STALE


class Sidecar:
    """The gateway's sidecar folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # -------------------------------------------------------------------------------------------------- buckets

    def seed(self, bucket: str) -> None:
        """Give a bucket an access list, before the gateway serves it; without one it answers copies with an error.

        An owner that nobody can be: policies alone decide. One that is there stays: a changed owner erases the policy.
        """
        folder = self.folder / check_bucket(bucket) / BESIDE
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / ACL).exists():
            _put(folder / ACL, b'{"Owner":"","Grantees":[]}', 0o600)

    def forget(self, bucket: str) -> None:
        """Remove all that is kept of a bucket."""
        shutil.rmtree(self.folder / check_bucket(bucket), ignore_errors=True)

    def clean(self, bucket: str, directory: Path, *, begun_before: float | None = None) -> list[str]:
        """Remove what the gateway left in a tree: uploads that were begun and never ended, and its own folder.

        ``begun_before`` (Unix seconds): only uploads older than that, and the folder stays where anything is in it; None:
        everything, for when no gateway runs. Returns one sentence per thing removed.
        """
        removed = []
        folder = directory / TEMPORARY
        # A link of that name was made by the owner: its place is theirs, only what lies in it is the gateway's.
        for upload in sorted(_uploads(folder / UPLOADS)):
            if begun_before is None or _mtime(upload) < begun_before:
                shutil.rmtree(upload, ignore_errors=True)
                shutil.rmtree(self.folder / bucket / TEMPORARY / UPLOADS / upload.parent.name / upload.name, ignore_errors=True)
                _prune(upload.parent, folder)
                removed.append(f"An upload to {bucket} that was never ended.")
        if folder.is_symlink() or not folder.is_dir():
            return removed
        if begun_before is None:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            _prune(folder / UPLOADS, directory)
        if not folder.exists():
            removed.append(f"The gateway's folder {TEMPORARY} in {directory}.")
        return removed

    # -------------------------------------------------------------------------------------------------- files

    def etag(self, bucket: str, key: str) -> str:
        """Return the etag that the gateway answers with, without quotes; empty: none."""
        kept = self._kept(bucket, key)
        return kept.etag if kept is not None else ""

    def verdict(self, bucket: str, key: str, found: os.stat_result, ours: str) -> Verdict:
        """Say what the kept etag is to the file ``found`` at ``key``."""
        kept = self._kept(bucket, key)
        return Verdict.NONE if kept is None else judge(kept.etag, kept.sealed, kept.at_ns, found, ours)

    def settle(self, bucket: str, key: str, found: os.stat_result, ours: str) -> Verdict:
        """Make what the gateway says of a file that of the file ``found`` there; return what it said before.

        A file that the gateway replaces meanwhile is put right by the look that its change brings.
        """
        kept = self._kept(bucket, key)
        if kept is None:
            self.mark(bucket, key, ours)
            return Verdict.NONE
        verdict = judge(kept.etag, kept.sealed, kept.at_ns, found, ours)
        if verdict is Verdict.FRESH:
            self._seal(bucket, key, kept, found)
        elif verdict is Verdict.STALE:
            self.clear_stale(bucket, key, ours)
        return verdict

    def mark(self, bucket: str, key: str, etag: str) -> None:
        """Give a file that has none an etag. One that the gateway gives it at the same moment stays."""
        if not _markable(key):
            return
        folder = self._meta(bucket, key)
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(folder / ETAG, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SEALED)
            try:
                os.write(handle, f'"{etag}"'.encode())
            finally:
                os.close(handle)

    def clear_stale(self, bucket: str, key: str, etag: str) -> None:
        """Take away what was said of older content, and say ``etag`` in its place."""
        folder = self._meta(bucket, key)
        for name in STALE:
            (folder / name).unlink(missing_ok=True)
        _put(folder / ETAG, f'"{etag}"'.encode(), _SEALED)

    def drop(self, bucket: str, key: str) -> bool:
        """Forget a file that is gone: what is kept would make ``If-None-Match: *`` refuse a new one.

        Only what was settled here before: the etag of an upload is written before its file appears.
        """
        kept = self._kept(bucket, key)
        if kept is None or not kept.sealed:
            return False
        folder = self._meta(bucket, key)
        shutil.rmtree(folder, ignore_errors=True)
        _prune(folder.parent, self.folder / bucket)
        return True

    def known(self, bucket: str, prefix: str = "") -> Iterator[str]:
        """Yield the keys of files whose etag was settled here."""
        top = self.folder / bucket
        for folder, names, files in os.walk(top / prefix[: prefix.rfind("/") + 1]):
            if Path(folder) == top and TEMPORARY in names:
                names.remove(TEMPORARY)
            if ETAG in files and folder.endswith("/" + BESIDE):
                key = os.path.relpath(Path(folder).parent, top)
                if key != "." and key.startswith(prefix) and (Path(folder) / ETAG).stat().st_mode & stat.S_IWUSR == 0:
                    yield key

    def _meta(self, bucket: str, key: str) -> Path:
        return self.folder / bucket / key / BESIDE

    def _kept(self, bucket: str, key: str) -> _Kept | None:
        if not _markable(key):
            return None
        try:
            handle = os.open(f"{self.folder}/{bucket}/{key}/{BESIDE}/{ETAG}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if walking.gone(error) or walking.too_long(error):
                return None
            raise
        try:
            found = os.fstat(handle)
            etag = os.read(handle, _LARGEST).decode("ascii", "replace").strip('"')
        finally:
            os.close(handle)
        return _Kept(etag, found.st_mode & stat.S_IWUSR == 0, found.st_mtime_ns)

    def _seal(self, bucket: str, key: str, kept: _Kept, found: os.stat_result) -> None:
        """Note that this etag is that of the file with this ctime."""
        path = self._meta(bucket, key) / ETAG
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if os.fstat(handle).st_mtime_ns == kept.at_ns:
                    os.utime(handle, ns=(found.st_ctime_ns, found.st_ctime_ns))
                    os.fchmod(handle, _SEALED)
            finally:
                os.close(handle)


def _markable(key: str) -> bool:
    """Say whether the sidecar has a place for a key.

    Below its own word at the top lies what the gateway keeps of the bucket, and of a folder ``x`` in ``x/meta``: what was kept
    of a file ``x/meta/etag`` would stand in the way of the folder's own, and every listing of it would fail (measured).
    """
    parts = walking.parts_of(key)
    if not parts or parts[0] == BESIDE or key.endswith("/"):
        return False
    return not any(one == BESIDE and other in ATTRIBUTES for one, other in itertools.pairwise(parts))


def _put(path: Path, content: bytes, mode: int) -> None:
    staged = path.with_name(f"{path.name}.wio")
    staged.unlink(missing_ok=True)
    handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)
    staged.replace(path)


def _uploads(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for key in folder.iterdir():
            if key.is_dir():
                yield from (upload for upload in key.iterdir() if upload.is_dir())


def _mtime(folder: Path) -> float:
    """Return when anything was last put into an upload."""
    newest = 0.0
    with contextlib.suppress(OSError):
        newest = folder.lstat().st_mtime
        for one in folder.iterdir():
            newest = max(newest, one.lstat().st_mtime)
    return newest


def _prune(folder: Path, top: Path) -> None:
    """Remove a folder and those above it below ``top`` as far as they are empty."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent
