"""``wio get`` and ``wio put``: files and folders between this machine and a workspace, over S3, without any other program.

Keys are renewed on the way, so a transfer may take days. A file that is fetched gets its name when it is complete, and the
time that storage gave it; a file that is sent in parts shows when all of it is there. Four files are on the way at once.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from protocol.errors import BadInput, BadName, NotAllowed, StorageRefused, StorageUnreachable, UnknownPath, WioError
from protocol.names import shown
from wio.credentials import Place
from wio.s3 import botocore_session, locate
from wio.session import Session

AT_ONCE: Final = 4
PIECE: Final = 1 << 20
"""Bytes read or written at once."""
PART: Final = 64 << 20
"""Bytes of a part; a file above that is sent in parts."""
MOST_PARTS: Final = 10_000
"""What S3 allows."""
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_REFUSED: Final = frozenset({"403", "AccessDenied"})


@dataclass(frozen=True)
class One:
    """A file to transfer: here, there, how large it is, when it changed (Unix seconds)."""

    here: Path
    key: str
    name: str
    """What it is called in a workspace: ``owner/name/…``."""
    size: int
    changed: float


@dataclass(frozen=True)
class Report:
    """What was done. ``failed``: the first error of each file that could not be transferred, with its name."""

    files: int
    bytes: int
    skipped: int
    failed: tuple[tuple[str, WioError], ...]


Progress = Callable[[int], None]
"""Told of bytes as they go."""


class Transfer:
    """Between one path of a workspace and this machine."""

    def __init__(self, session: Session, path: str, *, read_only: bool) -> None:
        self.place: Place = locate(path, session=session)
        made = botocore_session(path, read_only=read_only, session=session)
        self._client: Any = made.create_client("s3")

    # -------------------------------------------------------------------------------------------------- what there is

    def there(self) -> list[One]:
        """List what the path means: the file of that name, else everything in the folder. Raises UnknownPath for nothing."""
        place = self.place
        if place.inside and not place.key.endswith("/"):
            with contextlib.suppress(UnknownPath):
                head = self._ask(self._client.head_object, Key=place.key)
                name = place.inside.rpartition("/")[2]
                return [One(Path(name), place.key, self._name(place.key), head["ContentLength"], _time(head["LastModified"]))]
        folder = self._folder()
        found = [
            One(_local(one["Key"][len(folder) :]), one["Key"], self._name(one["Key"]), one["Size"], _time(one["LastModified"]))
            for one in self._listed(folder)
            if not one["Key"].endswith("/")
        ]
        if not found and place.inside:
            raise UnknownPath(f"Nothing lies at {shown(place.path)}.", todo="wio ls shows what is there.")
        return found

    def whole(self, files: Iterable[One]) -> bool:
        """Say whether these are a folder's, and not the one file that was asked for."""
        return not (self.place.inside and [one.key for one in files] == [self.place.key])

    def sent(self, sources: Iterable[Path]) -> list[One]:
        """Say under which keys local files and folders go to the path: into it, or as it where it is one file's name."""
        files = list(sources)
        place = self.place
        into = not place.inside or place.key.endswith("/") or len(files) > 1
        found: list[One] = []
        for source in files:
            if source.is_dir():
                base = self._folder() + (f"{source.resolve().name}/" if into else "")
                found += [self._one(path, base + path.relative_to(source).as_posix()) for path in _files(source)]
            elif source.is_file():
                found.append(self._one(source, self._folder() + source.name if into else place.key))
            else:
                raise BadInput(f"{shown(str(source))} is no file or folder of this machine.")
        return found

    def sizes(self) -> dict[str, tuple[int, float]]:
        """Return size and time of everything at the path, by key: what need not be sent again."""
        found = {one["Key"]: (one["Size"], _time(one["LastModified"])) for one in self._listed(self._folder())}
        if self.place.inside and not self.place.key.endswith("/"):
            with contextlib.suppress(UnknownPath):
                head = self._ask(self._client.head_object, Key=self.place.key)
                found[self.place.key] = (head["ContentLength"], _time(head["LastModified"]))
        return found

    def _folder(self) -> str:
        """Return the path as a folder's prefix: empty or with a final slash, so that scans2 is not taken for scans."""
        if not self.place.inside:
            return self.place.prefix
        return self.place.key if self.place.key.endswith("/") else self.place.key + "/"

    def _one(self, path: Path, key: str) -> One:
        stat = path.stat()
        return One(path, key, self._name(key), stat.st_size, stat.st_mtime)

    def _name(self, key: str) -> str:
        return f"{self.place.workspace}/{key[len(self.place.prefix) :]}"

    def _listed(self, prefix: str) -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket, Prefix=prefix)
        with _trouble(self.place.path):
            for page in pages:
                yield from page.get("Contents", ())

    def _ask(self, call: Callable[..., Any], **what: Any) -> Any:
        with _trouble(self.place.path):
            return call(Bucket=self.place.bucket, **what)

    # -------------------------------------------------------------------------------------------------- doing it

    def get(self, files: Iterable[One], *, told: Progress, skip: Callable[[One], bool]) -> Report:
        """Fetch files to where their ``here`` says. One that fails does not hold up the others."""
        return _all(files, lambda one: self._get(one, told), skip)

    def put(self, files: Iterable[One], *, told: Progress, skip: Callable[[One], bool]) -> Report:
        """Send files to their keys. One that fails does not hold up the others."""
        return _all(files, lambda one: self._put(one, told), skip)

    def _get(self, one: One, told: Progress) -> None:
        one.here.parent.mkdir(parents=True, exist_ok=True)
        part = one.here.with_name(f".{one.here.name[:200]}.{secrets.token_hex(4)}.part")
        try:
            with _trouble(one.name), part.open("xb") as file:
                answer = self._client.get_object(Bucket=self.place.bucket, Key=one.key)
                for piece in answer["Body"].iter_chunks(PIECE):
                    file.write(piece)
                    told(len(piece))
                if file.tell() != answer["ContentLength"]:
                    raise StorageUnreachable(f"{shown(one.name)} came in cut short.", todo="Run it again.")
            changed = _time(answer["LastModified"])
            os.utime(part, (changed, changed))
            part.replace(one.here)
        finally:
            part.unlink(missing_ok=True)

    def _put(self, one: One, told: Progress) -> None:
        with _trouble(one.name), one.here.open("rb") as file:
            if one.size <= PART:
                self._client.put_object(Bucket=self.place.bucket, Key=one.key, Body=file)
                told(one.size)
            else:
                self._put_in_parts(one, file, told)

    def _put_in_parts(self, one: One, file: IO[bytes], told: Progress) -> None:
        where = {"Bucket": self.place.bucket, "Key": one.key}
        upload = {**where, "UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
        try:
            length = max(PART, -(-one.size // MOST_PARTS))
            parts: list[dict[str, Any]] = []
            while piece := file.read(length):
                number = len(parts) + 1
                made = self._client.upload_part(**upload, PartNumber=number, Body=piece)
                parts.append({"PartNumber": number, "ETag": made["ETag"]})
                told(len(piece))
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(BotoCoreError, ClientError):
                self._client.abort_multipart_upload(**upload)
            raise


def _all(files: Iterable[One], do: Callable[[One], None], skip: Callable[[One], bool]) -> Report:
    """Do something with each file, a few at once; end early, with nothing left on the way, when interrupted."""
    done, size, skipped = 0, 0, 0
    failed: list[tuple[str, WioError]] = []
    running: dict[Future[None], One] = {}

    def collect(finished: Iterable[Future[None]]) -> None:
        nonlocal done, size
        for future in finished:
            one = running.pop(future)
            try:
                future.result()
            except WioError as error:
                failed.append((one.name, error))
            except OSError as error:
                failed.append((one.name, BadInput(f"{shown(str(one.here))} cannot be used: {error.strerror or error}.")))
            else:
                done += 1
                size += one.size

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for one in files:
            if skip(one):
                skipped += 1
                continue
            running[pool.submit(do, one)] = one
            if len(running) >= 2 * AT_ONCE:
                collect(wait(running, return_when=FIRST_COMPLETED).done)
        collect(wait(running).done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return Report(done, size, skipped, tuple(failed))


def _files(folder: Path) -> Iterator[Path]:
    """Give every file below a folder, in the order of their names. Links to folders are not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _local(inside: str) -> Path:
    """Return where the rest of a key lies below a folder here; raise BadName for one that would lie elsewhere."""
    parts = inside.split("/")
    if any(part in {"", ".", ".."} or "\\" in part or "\0" in part for part in parts):
        raise BadName(
            f"{shown(inside)} cannot be a file here: its name holds an empty, . or .. part, or a backslash.",
            todo="Fetch the others by name, or use mc.",
        )
    return Path(*parts)


def _time(moment: Any) -> float:
    return float(moment.timestamp())


@contextlib.contextmanager
def _trouble(name: str) -> Iterator[None]:
    """Turn what storage, or the way to it, says into a sentence."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise UnknownPath(f"Nothing lies at {shown(name)}.", todo="wio ls shows what is there.") from error
        if code in _REFUSED:
            todo = f"wio why says why: wio why YOU {name}"
            raise NotAllowed(f"The storage server refuses {shown(name)}.", todo=todo) from error
        raise StorageRefused(f"The storage server refuses {shown(name)}: {code}.") from error
    except (BotoCoreError, HTTPClientError) as error:
        raise StorageUnreachable(
            f"The storage of {shown(name)} cannot be reached: {error}.", todo="wio doctor says what is wrong."
        ) from error
