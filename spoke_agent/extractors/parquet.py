"""Parquet: the footer, where everything is said about the table."""

from __future__ import annotations

from typing import Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Unreadable, Wanted
from spoke_agent.extractors.source import Source

_MARK: Final = b"PAR1"
_TAIL: Final = 8
"""Bytes after the footer: its length and the mark."""
_LONGEST: Final = 16 * 1024 * 1024
"""Bytes of a footer. Real ones have some KiB; thousands of columns make a few MiB."""
_COLUMNS: Final = 2000
"""Columns whose names are kept for searching."""


class Parquet:
    """Rows, row groups, columns and who wrote it."""

    name = "parquet"
    version = 1
    what = "a Parquet file"
    endings: tuple[str, ...] = (".parquet", ".parq", ".pq", ".geoparquet")
    needs: tuple[str, ...] = ("pyarrow.parquet",)

    def fits(self, key: str, head: bytes) -> bool:  # noqa: ARG002 - the mark is enough
        """Say whether it begins with the mark."""
        return head.startswith(_MARK)

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read the footer. Raises Unreadable."""
        tail = source.at(source.size - _TAIL, _TAIL) if source.size > _TAIL else b""
        if tail[4:] == b"PARE":
            raise Unreadable("Its footer is encrypted.")
        if tail[4:] != _MARK:
            raise Unreadable("It does not end as a Parquet file does: it is not complete.")
        if int.from_bytes(tail[:4], "little") > min(_LONGEST, source.size):
            raise Unreadable("Its footer cannot be that long.")
        import pyarrow.parquet  # noqa: PLC0415 - imported where a file is read

        found = pyarrow.parquet.read_metadata(source.file())
        schema = found.schema
        columns = [schema.column(number) for number in range(min(found.num_columns, _COLUMNS))]
        values: dict[str, object] = {
            "parquet.rows": found.num_rows,
            "parquet.row_groups": found.num_row_groups,
            "parquet.columns": found.num_columns,
            "parquet.names": [one.path for one in columns],
            "parquet.schema": [f"{one.path} {_type(one)}" for one in columns],
            "parquet.creator": found.created_by,
            "parquet.version": found.format_version,
        }
        if found.num_row_groups and found.num_columns:
            values["parquet.compression"] = found.row_group(0).column(0).compression
        text = "\n".join(one.path for one in columns) if wanted is Wanted.CONTENT else ""
        return fitted("parquet", values, text=text)


def _type(column: object) -> str:
    """Return a column's type: the logical one where there is one."""
    logical = getattr(getattr(column, "logical_type", None), "type", "NONE")
    return str(logical if logical != "NONE" else getattr(column, "physical_type", "")).lower()
