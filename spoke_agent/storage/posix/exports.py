"""Which directory of the owner's a bucket name stands for. The only place where a key of the tree becomes a path. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from protocol.errors import RootMissing


class Export(msgspec.Struct, frozen=True):
    """One directory that is served: ``directory`` (absolute, as the owner wrote it) as bucket ``bucket``."""

    bucket: str
    directory: str


class Exports:
    """The directories of one node. No two have the same bucket, and none lies in another."""

    def __init__(self, exports: Sequence[Export]) -> None:
        self._directories = {export.bucket: Path(export.directory) for export in exports}

    def __iter__(self) -> Iterator[Export]:
        return (Export(bucket, str(directory)) for bucket, directory in sorted(self._directories.items()))

    def directory(self, bucket: str) -> Path:
        """Return where a bucket lies. Raises RootMissing where the owner serves none of that name."""
        try:
            return self._directories[bucket]
        except KeyError:
            known = ", ".join(sorted(self._directories)) or "none"
            raise RootMissing(
                f"Bucket {bucket} is not served by this node.", todo=f"Its directories are served as: {known}."
            ) from None

    def add(self, export: Export) -> None:
        """Serve one more directory, or another one under a known name."""
        self._directories[export.bucket] = Path(export.directory)

    def remove(self, bucket: str) -> None:
        """Serve a bucket no longer; fine if it is not served."""
        self._directories.pop(bucket, None)
