"""NIfTI: the header, compressed or not. Of a compressed file no more is unpacked than that."""

from __future__ import annotations

import math
import zlib
from typing import Any, Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Unreadable, Wanted, ending
from spoke_agent.extractors.source import Source

_HEADER: Final = 540
"""Bytes of a NIfTI-2 header; a NIfTI-1 header has 348."""
_SIZES: Final = {b"\x5c\1\0\0": 348, b"\0\0\1\x5c": 348, b"\x1c\2\0\0": 540, b"\0\0\2\x1c": 540}
"""What headers begin with: their length, in either order of bytes."""
_GZIP: Final = 31
"""What zlib calls the format with gzip's own header."""


class Nifti:
    """Shape, size of voxels, type of data, time between volumes."""

    name = "nifti"
    version = 1
    what = "a NIfTI file"
    endings: tuple[str, ...] = (".nii", ".nii.gz")
    needs: tuple[str, ...] = ("nibabel",)

    def fits(self, key: str, head: bytes) -> bool:
        """Say whether it begins with the length of a header and has its mark; gzip only with a name that says NIfTI."""
        if head[:2] == b"\x1f\x8b" and ending(key) == ".nii.gz":
            return True
        return head[:4] in _SIZES and (head[344:347] in {b"n+1", b"ni1"} or head[4:7] in {b"n+2", b"ni2"})

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Read the header. Raises Unreadable."""
        packed = source.head[:2] == b"\x1f\x8b"
        header = _unpacked(source.head) if packed else source.head[:_HEADER]
        if header[:4] not in _SIZES or len(header) < _SIZES[header[:4]]:
            raise Unreadable("It is named like a NIfTI file and does not begin with a header.")
        import nibabel  # noqa: PLC0415 - imported where a file is read

        kind: Any = nibabel.Nifti1Header if _SIZES[header[:4]] == 348 else nibabel.Nifti2Header  # noqa: PLR2004 - see _HEADER
        read = kind(header[: _SIZES[header[:4]]], check=False)
        shape = [int(one) for one in read.get_data_shape()]
        zooms = [round(float(one), 6) for one in read.get_zooms()]
        space, time = read.get_xyzt_units()
        values: dict[str, object] = {
            "nifti.version": 1 if kind is nibabel.Nifti1Header else 2,
            "nifti.shape": shape,
            "nifti.voxel_size": zooms[:3],
            "nifti.datatype": str(read.get_data_dtype()),
            "nifti.space_unit": space,
            "nifti.time_unit": time,
        }
        values |= {f"nifti.dim{number}": size for number, size in enumerate(shape, 1)}
        if len(zooms) > 3:  # noqa: PLR2004 - the fourth is time
            values["nifti.time_step"] = zooms[3]
        problem = ""
        if not packed and read.get_data_offset() + math.prod(shape) * read.get_data_dtype().itemsize > source.size:
            problem = "It is shorter than its header says."
        text = bytes(read["descrip"]).rstrip(b"\0").decode("utf-8", "replace") if wanted is Wanted.CONTENT else ""
        return fitted("nifti", values, text=text, problem=problem)


def _unpacked(head: bytes) -> bytes:
    """Return the header of a compressed file. Raises Unreadable."""
    try:
        return zlib.decompressobj(_GZIP).decompress(head, _HEADER)
    except zlib.error as error:
        raise Unreadable("It is named like a compressed file and cannot be unpacked.") from error
