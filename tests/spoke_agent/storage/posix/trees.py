"""A tree in a folder of the test's own, and what the agent sees of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protocol.messages import IndexLevel, RootConfig
from protocol.names import Layout
from spoke_agent.storage.node import Entry
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.tree import Tree


class Seen:
    """A directory ``data`` served as bucket ``lab``."""

    def __init__(self, folder: Path, *, spaces: Sequence[str] = (), writable: Sequence[str] = ("",)) -> None:
        self.top = folder / "data"
        self.top.mkdir(exist_ok=True)
        self.exports = Exports([Export("lab", str(self.top))])
        self.sidecar = Sidecar(folder / "sidecar")
        self.tree = Tree(self.exports, self.sidecar, spaces=lambda _: spaces, writable=lambda _: writable)

    def put(self, key: str, content: bytes = b"content") -> Path:
        path = self.top / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def keys(self, prefix: str = "", *, start_after: str = "", under: str = "") -> list[str]:
        return [one.key for one in await self.entries(prefix, start_after=start_after, under=under)]

    async def entries(self, prefix: str = "", *, start_after: str = "", under: str = "") -> list[Entry]:
        found: list[Entry] = []
        async for page in self.tree.scan(root(under), start_after=start_after, prefix=prefix):
            found += page
        return found


def root(prefix: str = "", number: int = 7) -> RootConfig:
    return RootConfig(number, "root", "lab", prefix, Layout.PREFIX, IndexLevel.METADATA)
