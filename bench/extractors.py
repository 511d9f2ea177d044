"""EXTRACT: files a second whose fields one worker reads, beside the library of that kind of file called in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import h5py
import nibabel
import pyarrow.parquet
import pydicom
import uvloop
from PIL import Image
from pypdf import PdfReader

from bench import samples
from bench.figure import Figure, percentile, rounded
from bench.rig import Rig
from protocol.messages import IndexLevel
from spoke_agent.extraction import Extraction

ROUNDS: Final = 5
ROUND_S: Final = 1.0
"""How long each round of each kind takes, about."""
CALLERS: Final = 4
"""Files looked at at once; one worker reads them all."""


def measure(rig: Rig) -> Figure:
    """Read images over and over, in turns with Pillow; then each other kind, whose rates and ratios stand in the scale."""
    del rig  # files are read from here: what a storage server adds is another figure
    with TemporaryDirectory(prefix="wio-bench-") as folder:
        rates = uvloop.run(_measure(Path(folder)))  # as the agent runs
    ours, beside = rates.pop("image")
    return Figure(
        what="images whose fields are read, through one worker",
        unit="/s",
        n=ROUNDS,
        p50=rounded(percentile(ours, 50)),
        peer="Pillow in this process",
        peer_p50=rounded(percentile(beside, 50)),
        ratio=rounded(percentile(ours, 50) / percentile(beside, 50)),
        goal=">= 0.5 x",
        scale={
            kind: f"{rounded(percentile(mine, 50)):g}/s ({percentile(mine, 50) / percentile(library, 50):.2f} x)"
            for kind, (mine, library) in rates.items()
        },
    )


async def _measure(folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Return files a second by kind, through the pool and directly, of each round."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    pool = Extraction()
    try:
        for kind, make in samples.ALL.items():
            path = make(folder)
            await _pooled(pool, [path] * CALLERS)  # libraries are loaded, here and there
            count = max(20, round(_direct(kind, path, 20) * ROUND_S / 2))
            ours, beside = found[kind] = ([], [])
            for _ in range(ROUNDS):
                beside.append(_direct(kind, path, count))
                ours.append(await _pooled(pool, [path] * count))
    finally:
        await pool.close()
    return found


async def _pooled(pool: Extraction, paths: Sequence[Path]) -> float:
    """Return files a second through the pool."""
    left = iter(paths)

    async def caller() -> None:
        for path in left:

            async def read(offset: int, length: int, path: Path = path) -> bytes:
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(length)

            fields = await pool.extract(path.name, path.stat().st_size, IndexLevel.METADATA, read)
            if fields is None or fields.problem:
                raise AssertionError(f"{path.name} is not read: {fields}")

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return len(paths) / (time.perf_counter() - began)


def _direct(kind: str, path: Path, count: int) -> float:
    """Return files a second with the kind's library alone."""
    look = _LIBRARY[kind]
    began = time.perf_counter()
    for _ in range(count):
        look(path)
    return count / (time.perf_counter() - began)


def _image(path: Path) -> object:
    with Image.open(path) as image:
        exif = image.getexif()
        return image.size, image.mode, dict(exif), dict(exif.get_ifd(0x8769)), dict(exif.get_ifd(0x8825))


def _hdf5(path: Path) -> object:
    seen: list[Any] = []
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, one: seen.append((name, getattr(one, "shape", None), dict(one.attrs))))
        return seen, dict(file.attrs)


def _pdf(path: Path) -> object:
    reader = PdfReader(path)
    about = reader.metadata
    return reader.get_num_pages(), about and (about.title, about.author, about.subject, about.creator, about.creation_date)


_LIBRARY: Final[dict[str, Callable[[Path], object]]] = {
    "image": _image,
    "dicom": lambda path: [one.value for one in pydicom.dcmread(path, stop_before_pixels=True)],
    "nifti": lambda path: nibabel.load(path).header.get_zooms(),  # type: ignore[attr-defined]  # not in their base class
    "netcdf": _hdf5,
    "hdf5": _hdf5,
    "parquet": lambda path: pyarrow.parquet.read_metadata(path).to_dict(),
    "pdf": _pdf,
    "text": lambda path: path.read_bytes()[: 64 * 1024].decode(),
}
