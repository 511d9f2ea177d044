"""Which extractors there are: ours, and those that other installed packages offer as entry points."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import Final, NamedTuple, cast

from spoke_agent.extractors.interface import Extractor

GROUP: Final = "wio.extractors"
OURS: Final[Mapping[str, str]] = {
    "image": "spoke_agent.extractors.image:Image",
    "dicom": "spoke_agent.extractors.dicom:Dicom",
    "nifti": "spoke_agent.extractors.nifti:Nifti",
    "hdf5": "spoke_agent.extractors.hdf5:Hdf5",
    "netcdf": "spoke_agent.extractors.netcdf:Netcdf",
    "parquet": "spoke_agent.extractors.parquet:Parquet",
    "pdf": "spoke_agent.extractors.pdf:Pdf",
    "text": "spoke_agent.extractors.text:Text",
}
"""What pyproject.toml declares as entry points; here too, so that a checkout works that was not installed again. In the order
in which they are tried."""


class Plugin(NamedTuple):
    """One extractor by the name and the place of its class, before anything of it is imported."""

    name: str
    target: str


def plugins() -> list[Plugin]:
    """Return all there are, in the order in which they are tried: those of other packages first, by name, so that they win."""
    ours = set(OURS.values())
    theirs = {one.name: one.value for one in importlib.metadata.entry_points(group=GROUP) if one.value not in ours}
    return [Plugin(name, theirs[name]) for name in sorted(theirs)] + [
        Plugin(name, target) for name, target in OURS.items() if name not in theirs
    ]


def load(plugin: Plugin) -> Extractor:
    """Import an extractor and make it. Raises whatever a module of somebody else may raise."""
    module, _, name = plugin.target.partition(":")
    return cast("Extractor", getattr(importlib.import_module(module.strip()), name.strip())())


def missing(extractor: Extractor) -> list[str]:
    """Return the packages that an extractor needs and that are not installed, without importing them."""
    packages = dict.fromkeys(name.partition(".")[0] for name in extractor.needs)
    return [name for name in packages if importlib.util.find_spec(name) is None]
