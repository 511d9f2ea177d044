"""A file as extractors see it: seekable bytes, of which only the ranges that are read are fetched."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BLOCK: Final = 64 * 1024
"""Bytes fetched at least. Libraries read a few bytes here and there; each fetch is a request to the storage server."""
AHEAD: Final = 16
"""Blocks fetched at once where reading goes on in order: 1 MiB."""
KEPT: Final = 64
"""Blocks kept in memory: 4 MiB."""
_BUFFER: Final = 8 * 1024


class Stopped(BaseException):
    """No more of this file may be read. Not an Exception: libraries that go on after errors must not go on after this."""


class Source(io.RawIOBase):
    """One file. ``fetch(offset, length)`` gives bytes, fewer only where the file is shorter than it was; raises Stopped."""

    def __init__(self, key: str, size: int, head: bytes, fetch: Callable[[int, int], bytes]) -> None:
        super().__init__()
        self.name = ""
        """For libraries that ask every file for it: none, so that nobody looks for one of that name here."""
        self.key = key
        self.size = size
        self.head = head
        """The first bytes, which are there already: 64 KiB, or all of a smaller file."""
        self._fetch = fetch
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._expected = -1

    def file(self) -> BinaryIO:
        """Return the same for libraries that read a few bytes at a time: several times faster than this class itself."""
        if self.size <= len(self.head):
            return io.BytesIO(self.head)
        return io.BufferedReader(self, _BUFFER)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, which may lie beyond the end."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("A position before the beginning of the file.")
        self._at = base + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes, all that were asked for unless the file ends."""
        left = max(0, self.size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        got = self.at(self._at, length)
        self._at += len(got)
        return got

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill a buffer, as far as the file goes."""
        view = memoryview(buffer).cast("B")
        got = self.read(len(view))
        view[: len(got)] = got
        return len(got)

    def at(self, offset: int, length: int) -> bytes:
        """Return the bytes at a place, whatever the position is."""
        length = max(0, min(length, self.size - offset))
        end = offset + length
        if end <= len(self.head):
            return self.head[offset:end]
        parts: list[bytes] = []
        while offset < end:
            index, within = divmod(offset, BLOCK)
            block = self._block(index, -(-end // BLOCK) - index)
            part = block[within : within + end - offset]
            if not part:
                break  # the file has become shorter
            parts.append(part)
            offset += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _block(self, index: int, wanted: int) -> bytes:
        """Return one block; where ``wanted`` more follow, or reading went in order so far, fetch those with it."""
        known = self._blocks.get(index)
        if known is not None:
            self._blocks.move_to_end(index)
            return known
        if index == 0 and len(self.head) == min(BLOCK, self.size):
            return self.head
        count = min(AHEAD, max(wanted, AHEAD if index == self._expected else 1))
        offset = index * BLOCK
        got = self._fetch(offset, min(count * BLOCK, self.size - offset))
        for number in range(count):
            self._blocks[index + number] = got[number * BLOCK : (number + 1) * BLOCK]
        while len(self._blocks) > KEPT:
            self._blocks.popitem(last=False)
        self._expected = index + count
        return got[:BLOCK]
