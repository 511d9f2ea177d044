"""``wio://owner/name/path`` for whatever goes through fsspec: pandas, Dask, zarr, PyArrow, DuckDB.

    pandas.read_parquet("wio://alice/scans/results.parquet")

Paths are read as everywhere: ``name/…`` is one's own workspace, ``owner/name/…`` anybody's. Workspaces of several nodes may be
used at once; below each node works one s3fs, whose requests are signed with this person's key there. Nothing of a listing is
kept: other people write as well.

When a storage server refuses a key, the hub is asked once. Its answer becomes the error (``PermissionError`` with the hub's own
sentence); if access is there, the request is sent again with the new key. A workspace that is gone in the middle of the work
is ``PermissionError`` as well, never ``FileNotFoundError``: zarr takes that for a chunk that was never written.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fsspec.asyn import AsyncFileSystem, sync, sync_wrapper
from s3fs import S3FileSystem

from protocol.errors import NotAllowed, NotFound, NotSignedIn, Unreachable, WioError
from protocol.grants import Permission
from wio.credentials import Key, Opening, Place, Wish
from wio.s3_aio import NodeSession
from wio.session import Session

_REFUSALS: Final = frozenset(
    {"AccessDenied", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired", "403"}
)
_READS: Final = ("get_", "head_", "list_")


class WioFileSystem(AsyncFileSystem):  # type: ignore[misc]  # fsspec publishes no types
    """Everybody's workspaces as one tree: ``""`` holds owners, an owner workspaces, a workspace files.

    ``hub`` and ``config`` (the directory with settings and sign-in) are those of the command unless given; ``read_only``: keys
    that cannot write. ``session``: of a program that has one; such a file system cannot be sent to another process.
    """

    protocol = "wio"
    root_marker = ""

    def __init__(
        self,
        *,
        hub: str | None = None,
        config: str | None = None,
        read_only: bool = False,
        session: Session | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        chosen = {name: str(value) for name, value in (("WIO_HUB", hub), ("WIO_CONFIG", config)) if value is not None}
        self._session = session or Session.here({**os.environ, **chosen})
        self._wish = Wish(read_only=read_only)
        self._nodes: dict[str, _Node] = {}
        self._heads: dict[str, Place] = {}

    @property
    def fsid(self) -> str:
        """What tells this tree from others."""
        return f"wio-{self._session.seat.hub}"

    def close(self) -> None:
        """Close the connections that are kept open; another use opens new ones."""
        for node in self._nodes.values():
            sync(self.loop, node.fs.aclose)

    async def aclose(self) -> None:
        """Do the same for an asynchronous program."""
        for node in self._nodes.values():
            await node.fs.aclose()

    # ------------------------------------------------------------------------------------------------------ where a path lies

    async def _at(self, path: str) -> _Position:
        """Return where a path lies; raises FileNotFoundError for a workspace that is not there for this person."""
        for head, inside in _readings(path):
            if head in self._heads:
                place = self._heads[head]
                return _Position(self._nodes[place.node], place, head, inside)
        with _as_os_errors(path):
            opening = await asyncio.to_thread(lambda: self._session.keys.open((path,), self._wish)[0])
        place = opening.place
        head = path.removesuffix(place.inside).rstrip("/")
        node = self._nodes.get(place.node)
        if node is None:
            node = self._nodes[place.node] = _Node(self._session, self._wish, opening, self.asynchronous, self._loop)
        node.add(place)
        self._heads[head] = place
        return _Position(node, place, head, path[len(head) :].lstrip("/"))

    async def _workspaces(self) -> list[str]:
        with _as_os_errors(""):
            found = await asyncio.to_thread(self._session.client.workspaces)
        return sorted(f"{one.owner}/{one.name}" for one in found)

    # ------------------------------------------------------------------------------------------------------ looking

    async def _info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        if not path:
            return _folder(path)
        try:
            at = await self._at(path)
        except FileNotFoundError:
            if "/" not in path and any(name.startswith(f"{path}/") for name in await self._workspaces()):
                return _folder(path)
            raise
        if not at.inside:
            return _folder(path)
        try:
            return at.shown(await at.node.fs._info(at.key))  # noqa: SLF001  - s3fs offers these to other file systems
        except FileNotFoundError as error:
            raise _missing(path) from error

    async def _ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        path = self._strip_protocol(path)
        found = [one async for one in self._listed(path)]
        if not found and path:
            info = await self._info(path)  # raises for what is not there
            found = [info] if info["type"] == "file" else []
        return found if detail else sorted(one["name"] for one in found)

    async def _listed(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Give what is directly in a folder, which may not be there."""
        owner = f"{path}/" if path else ""
        if "/" not in path:
            names = [name for name in await self._workspaces() if name.startswith(owner)]
            if not path:
                for name in dict.fromkeys(name.partition("/")[0] for name in names):
                    yield _folder(name)
                return
            try:
                await self._at(path)
            except FileNotFoundError:
                for name in names:
                    yield _folder(name)
                return
        for one in await self._stored(path, delimiter="/"):
            yield one

    async def _stored(self, path: str, *, delimiter: str, prefix: str = "") -> list[dict[str, Any]]:
        at = await self._at(path)
        rows = await at.node.fs._lsdir(at.key, delimiter=delimiter, prefix=prefix)  # noqa: SLF001  - as above
        shown = [at.shown(row) for row in rows]
        return [one for one in shown if one["name"] != path and not one["name"].endswith("/")]

    async def _find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        *,
        prefix: str = "",
        detail: bool = False,
        **options: Any,
    ) -> Any:
        path = self._strip_protocol(path)
        if maxdepth is not None or await self._holds_workspaces(path):
            found = await super()._find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **options)
            found = {name: one for name, one in found.items() if name.startswith(f"{path}/{prefix}") or not prefix}
        else:
            rows = await self._stored(path, delimiter="", prefix=prefix)
            found = {one["name"]: one for one in rows}
            if not found and not prefix and await self._exists(path):
                info = await self._info(path)
                found = {path: info} if info["type"] == "file" else {}
            if withdirs:
                found |= {name: _folder(name) for name in _folders(path, found)}
        return dict(sorted(found.items())) if detail else sorted(found)

    async def _holds_workspaces(self, path: str) -> bool:
        if "/" in path:
            return False
        try:
            await self._at(path)
        except (FileNotFoundError, ValueError):
            return True
        return False

    async def _exists(self, path: str, **_: Any) -> bool:
        try:
            await self._info(path)
        except FileNotFoundError:
            return False
        return True

    async def _isdir(self, path: str) -> bool:
        try:
            return bool((await self._info(path))["type"] == "directory")
        except FileNotFoundError:
            return False

    async def _isfile(self, path: str) -> bool:
        try:
            return bool((await self._info(path))["type"] == "file")
        except FileNotFoundError:
            return False

    def modified(self, path: str) -> Any:
        """Return when a file was last written."""
        return self.info(path)["LastModified"]

    # ------------------------------------------------------------------------------------------------------ reading, writing

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        at = await self._file(path)
        return bytes(await at.node.fs._cat_file(at.key, start=start, end=end, **options))  # noqa: SLF001  - as above

    async def _cat(self, path: Any, recursive: bool = False, **options: Any) -> Any:
        """Return the content of files; of a folder, with ``recursive``, that of all files below: a folder itself has none."""
        if recursive and isinstance(path, str):
            path = await self._find(path)
        return await super()._cat(path, **options)

    async def _pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **options: Any) -> None:
        at = await self._file(path)
        await at.node.fs._pipe_file(at.key, value, mode=mode, **options)  # noqa: SLF001  - as above

    async def _get_file(self, rpath: str, lpath: str, **options: Any) -> None:
        rpath = self._strip_protocol(rpath)
        if await self._isdir(rpath):
            os.makedirs(lpath, exist_ok=True)  # noqa: PTH103  - as fsspec does, in its own thread
            return
        at = await self._file(rpath)
        os.makedirs(os.path.dirname(lpath) or ".", exist_ok=True)  # noqa: PTH103, PTH120  - as above
        await at.node.fs._get_file(at.key, lpath, **options)  # noqa: SLF001  - as above

    async def _put_file(self, lpath: str, rpath: str, mode: str = "overwrite", **options: Any) -> None:
        if await asyncio.to_thread(os.path.isdir, lpath):
            return
        at = await self._file(rpath)
        await at.node.fs._put_file(lpath, at.key, mode=mode, **options)  # noqa: SLF001  - as above

    async def _cp_file(self, path1: str, path2: str, **options: Any) -> None:
        """Copy a file: on one node the server does it, between nodes it goes through this machine."""
        if await self._isdir(path1):
            return
        source, target = await self._file(path1), await self._file(path2)
        if source.node is target.node:
            await source.node.fs._cp_file(source.key, target.key, **options)  # noqa: SLF001  - as above
            return
        with tempfile.TemporaryDirectory(prefix="wio-") as folder:
            between = str(Path(folder) / "file")
            await source.node.fs._get_file(source.key, between)  # noqa: SLF001  - as above
            await target.node.fs._put_file(between, target.key)  # noqa: SLF001  - as above

    async def _rm_file(self, path: str, **_: Any) -> None:
        path = self._strip_protocol(path)
        at = await self._at(path)
        if at.inside:  # a workspace itself stays: wio w rm
            await at.node.fs._rm_file(at.key)  # noqa: SLF001  - as above

    async def _mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:  # noqa: ARG002  - fsspec's own form
        """Do nothing: folders are there when something is in them. Raises FileNotFoundError without the workspace."""
        await self._at(self._strip_protocol(path))

    async def _makedirs(self, path: str, exist_ok: bool = False) -> None:
        await self._mkdir(path, exist_ok)

    async def _rmdir(self, path: str) -> None:
        """Do nothing: folders are gone when nothing is in them."""

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        at: _Position = self._file_now(path)
        return at.node.fs._open(at.key, mode=mode, **options)  # noqa: SLF001  - as above

    async def open_async(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file for an asynchronous program."""
        at = await self._file(path)
        return await at.node.fs.open_async(at.key, mode=mode, **options)

    async def _file(self, path: str) -> _Position:
        path = self._strip_protocol(path)
        at = await self._at(path)
        if not at.inside:
            raise IsADirectoryError(errno.EISDIR, "This is a whole workspace", path)
        return at

    def _file_now(self, path: str) -> Any:
        return sync(self.loop, self._file, path)


# ---------------------------------------------------------------------------------------------------------- one node


class _Position:
    """Where a path lies: ``key`` as s3fs writes it, and the way back."""

    def __init__(self, node: _Node, place: Place, head: str, inside: str) -> None:
        self.node = node
        self.inside = inside
        self._front = f"{place.bucket}/{place.prefix}"
        self._head = head
        self.key = f"{self._front}{inside}".rstrip("/")

    def shown(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return what s3fs says of a file under the name that it has here."""
        name = str(row["name"])
        name = f"{self._head}/{name[len(self._front) :]}" if name.startswith(self._front) else self._head
        return {key: value for key, value in row.items() if key not in {"Key", "Size"}} | {"name": name}


class _Node:
    """One node: its s3fs, and the key for it for as long as one of the workspaces used there is open."""

    def __init__(self, session: Session, wish: Wish, opening: Opening, asynchronous: bool, loop: Any) -> None:
        self._session = session
        self._wish = wish
        self._places: dict[str, Place] = {}
        self.add(opening.place)
        self.session = NodeSession(self.fetch, session.clock)
        self.fs = _Storage(self, opening.key.endpoint, asynchronous=asynchronous, loop=loop)

    def add(self, place: Place) -> None:
        """Know of one more workspace here."""
        self._places = {place.workspace: place, **self._places}

    def fetch(self) -> Key:
        """Return the key for this node; blocks."""
        try:
            return self._session.keys.any(tuple(self._places), self._wish).key
        except NotFound as error:
            raise PermissionError(errno.EACCES, _told(error)) from error
        except WioError as error:
            raise _as_os_error(error, "") from error

    def at(self, bucket: str, key: str) -> Place | None:
        """Return the workspace that a position belongs to."""
        found = [one for one in self._places.values() if one.bucket == bucket and key.startswith(one.prefix.rstrip("/"))]
        return max(found, key=lambda one: len(one.prefix), default=None)

    def ask(self, place: Place, *, writes: bool) -> None:
        """Ask the hub why the storage refused; returns if access is there, and the next ``fetch`` gives a new key. Blocks.

        Raises PermissionError with what the hub says.
        """
        try:
            opening = self._session.keys.open((place.workspace,), self._wish, confirmed=True)[0]
        except (NotFound, NotAllowed, NotSignedIn) as error:
            raise PermissionError(errno.EACCES, _told(error), place.workspace) from error
        permission = opening.place.permission
        if writes and not (permission.writes or permission is Permission.DROP):
            raise PermissionError(errno.EACCES, f"It is open to you to {permission.value} only", place.workspace)
        self.session.credentials.renew()


class _Storage(S3FileSystem):  # type: ignore[misc]  # s3fs publishes no types
    """The s3fs of one node. All its requests go through ``_call_s3``."""

    cachable = False

    def __init__(self, node: _Node, endpoint: str, **options: Any) -> None:
        super().__init__(
            endpoint_url=endpoint,
            session=node.session,
            config_kwargs={"signature_version": "s3v4", "s3": {"addressing_style": "path"}},
            use_listings_cache=False,
            **options,
        )
        self._node = node

    async def aclose(self) -> None:
        """Close the connections that are kept open."""
        opened, self._s3 = self._s3, None  # type: ignore[has-type]  # it is s3fs's own
        if opened is not None:
            await self._s3creator.__aexit__(None, None, None)

    async def _call_s3(self, method: str, *akwarglist: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call_s3(method, *akwarglist, **kwargs)
        except OSError as error:
            place = self._node.at(str(kwargs.get("Bucket", "")), str(kwargs.get("Key", kwargs.get("Prefix", ""))))
            if place is None or not _refused(error):
                raise
            try:
                await asyncio.to_thread(self._node.ask, place, writes=not method.startswith(_READS))
            except WioError:  # the hub cannot say: what the storage said stands
                raise error from None
        if hasattr(kwargs.get("Body"), "seek"):
            kwargs["Body"].seek(0)
        try:
            return await super()._call_s3(method, *akwarglist, **kwargs)
        except OSError as error:
            if not _refused(error):
                raise
            said = f"The storage of node {place.node} refuses what the hub allows; wio why YOU {place.workspace} says more"
            raise PermissionError(errno.EACCES, said, place.workspace) from error

    call_s3 = sync_wrapper(_call_s3)  # s3fs's own is bound to its own ``_call_s3``


# ---------------------------------------------------------------------------------------------------------- words


def _readings(path: str) -> tuple[tuple[str, str], ...]:
    """Return the two ways to read a path: what names its workspace, and the rest; one's own workspaces first."""
    first, _, rest = path.partition("/")
    second, _, below = rest.partition("/")
    return (first, rest), (f"{first}/{second}", below)


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _folders(path: str, files: Iterable[str]) -> set[str]:
    """Return the folders below ``path`` that some file is in, and ``path`` itself."""
    found = {path}
    for name in files:
        folder = name.rpartition("/")[0]
        while len(folder) > len(path) and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _missing(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _refused(error: OSError) -> bool:
    cause = error.__cause__
    code = str(getattr(cause, "response", {}).get("Error", {}).get("Code", ""))
    return isinstance(error, PermissionError) if not code else code in _REFUSALS


def _told(error: WioError) -> str:
    return f"{error.message} {error.todo}".strip()


def _as_os_error(error: WioError, path: str) -> OSError:
    """Return an error of the tree as what programs expect of a file system."""
    said = _told(error)
    if isinstance(error, NotFound):
        return FileNotFoundError(errno.ENOENT, said, path)
    if isinstance(error, NotAllowed | NotSignedIn):
        return PermissionError(errno.EACCES, said, path)
    if isinstance(error, Unreachable):
        return ConnectionError(errno.EHOSTUNREACH, said, path)
    return OSError(errno.EIO, said, path)


@contextmanager
def _as_os_errors(path: str) -> Iterator[None]:
    try:
        yield
    except WioError as error:
        raise _as_os_error(error, path) from error
