"""netCDF's classic formats: the header, read here, so that no data is: its libraries want the whole file.

The format: NetCDF User's Guide, "File Format Specifications", for CDF-1, CDF-2 (64-bit offsets) and CDF-5 (64-bit data).
"""

from __future__ import annotations

import struct
from typing import Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Unreadable, Wanted
from spoke_agent.extractors.source import Source

_DIMENSIONS, _VARIABLES, _ATTRIBUTES = 10, 11, 12
_TYPES: Final = {1: "b", 2: "s", 3: "h", 4: "i", 5: "f", 6: "d", 7: "B", 8: "H", 9: "I", 10: "q", 11: "Q"}
"""What ``struct`` calls them; 2 is text."""
_TEXT: Final = 2
_MOST: Final = 5000
"""Dimensions, variables and attributes in all."""
_LONG: Final = 4096
"""Bytes of an attribute above which it is skipped."""


class Netcdf:
    """Dimensions, variables and the attributes of the whole file."""

    name = "netcdf"
    version = 1
    what = "a netCDF file"
    endings: tuple[str, ...] = (".nc", ".cdf", ".netcdf", ".nc3")
    needs: tuple[str, ...] = ()

    def fits(self, key: str, head: bytes) -> bool:  # noqa: ARG002 - the mark is enough
        """Say whether it has the mark."""
        return head[:3] == b"CDF" and head[3:4] in {b"\1", b"\2", b"\5"}

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read the header. Raises Unreadable."""
        header = _Header(source)
        dimensions, attributes, variables, words = header.read()
        values: dict[str, object] = {f"netcdf.dimension.{name}": size for name, size in dimensions}
        values |= {"netcdf.dimensions": [name for name, _ in dimensions], "netcdf.variables": variables}
        values = {name: value for name, value in values.items() if value != []}
        for name, value in attributes.items():
            values.setdefault(f"netcdf.{name}", value)
        text = "\n".join([*variables, *words]) if wanted is Wanted.CONTENT else ""
        return fitted("netcdf", values, text=text)


class _Header:
    """Reads a header from its beginning to its end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._version = source.head[3]
        self._at = 4
        self._left = _MOST

    def read(self) -> tuple[list[tuple[str, int]], dict[str, object], list[str], list[str]]:
        """Return dimensions with their sizes, attributes, names of variables, and their long names."""
        records = self._size()
        if records >= 2 ** (64 if self._version == 5 else 32) - 1:  # noqa: PLR2004 - CDF-5
            records = 0  # still being written
        # The dimension of size 0 is the one that grows: its size is the number of records.
        dimensions = [(self._name(), self._size() or records) for _ in range(self._list(_DIMENSIONS))]
        attributes = dict(self._attributes())
        variables: list[str] = []
        words: list[str] = []
        for _ in range(self._list(_VARIABLES)):
            variables.append(self._name())
            ranks = self._count()
            self._skip(ranks * (8 if self._version == 5 else 4))  # noqa: PLR2004 - CDF-5
            words += [value for name, value in self._attributes() if name == "long_name" and isinstance(value, str)]
            self._skip(4)  # type
            self._size()
            self._skip(4 if self._version == 1 else 8)  # where its data begins
        return dimensions, attributes, variables, words

    def _attributes(self) -> list[tuple[str, object]]:
        return [(self._name(), self._attribute()) for _ in range(self._list(_ATTRIBUTES))]

    def _attribute(self) -> object:
        """Return one attribute's value; None where it is long."""
        kind, count = self._int(), self._size()
        letter = _TYPES.get(kind)
        if letter is None:
            raise Unreadable("Its header has a type that netCDF does not know.")
        length = struct.calcsize(letter) * count
        if length > _LONG:
            self._skip(length + -length % 4)
            return None
        body = self._take(length + -length % 4)[:length]
        if kind == _TEXT:
            return body.decode("utf-8", "replace").rstrip("\0")
        found = list(struct.unpack(f">{count}{letter}", body))
        return found[0] if len(found) == 1 else found

    def _list(self, tag: int) -> int:
        """Return how many entries the next list has."""
        found, count = self._int(), self._count()
        if found not in {0, tag} or (found == 0 and count):
            raise Unreadable("Its header is not as netCDF wants it.")
        return count

    def _count(self) -> int:
        count = self._size()
        self._left -= count
        if self._left < 0:
            raise Unreadable(f"Its header has more than {_MOST} entries.")
        return count

    def _name(self) -> str:
        length = self._size()
        if length > _LONG:
            raise Unreadable("Its header has a name that is too long.")
        return self._take(length + -length % 4)[:length].decode("utf-8", "replace")

    def _size(self) -> int:
        return int.from_bytes(self._take(8 if self._version == 5 else 4), "big")  # noqa: PLR2004 - CDF-5

    def _int(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def _skip(self, length: int) -> None:
        self._at += length

    def _take(self, length: int) -> bytes:
        body = self._source.at(self._at, length)
        if len(body) < length:
            raise Unreadable("It ends within its header.")
        self._at += length
        return body
