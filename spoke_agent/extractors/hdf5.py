"""HDF5 and what is made of it, netCDF 4 first: groups, variables, dimensions and the attributes of the whole file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from protocol.fields import Fields, fitted
from spoke_agent.extractors.interface import Wanted, ending
from spoke_agent.extractors.source import Source

if TYPE_CHECKING:
    import h5py

_MARK: Final = b"\x89HDF\r\n\x1a\n"
_NETCDF: Final = (".nc", ".nc4", ".cdf", ".netcdf")
_MOST: Final = 1000
"""Groups and variables looked at: each is a few reads."""
_DEPTH: Final = 6
"""Groups within groups."""
_ATTRIBUTES: Final = 60
_LONG: Final = 4096
"""Bytes of an attribute above which it is left out."""


class Hdf5:
    """Looks at the first thousand objects and no data."""

    name = "hdf5"
    version = 1
    what = "an HDF5 file"
    endings: tuple[str, ...] = (".h5", ".hdf5", ".he5", ".hdf", ".h5ad", ".loom", ".nwb", *_NETCDF)
    needs: tuple[str, ...] = ("h5py",)

    def fits(self, key: str, head: bytes) -> bool:  # noqa: ARG002 - the mark is enough
        """Say whether the mark is at one of the places where HDF5 allows it: 0, 512, and so on, twice as far each time."""
        at = 0
        while at < len(head):
            if head[at : at + len(_MARK)] == _MARK:
                return True
            at = at * 2 or 512
        return False

    def extract(self, source: Source, wanted: Wanted) -> Fields:
        """Walk through the file."""
        import h5py  # noqa: PLC0415 - imported where a file is read

        with h5py.File(source.file(), "r") as file:
            seen = _Seen()
            kind = "netcdf" if ending(source.key) in _NETCDF or "_NCProperties" in file.attrs else "hdf5"
            _walk(file, "", 0, seen)
            own: dict[str, object] = {f"{kind}.dimension.{name}": size for name, size in seen.dimensions.items()}
            own[f"{kind}.dimensions"] = list(seen.dimensions)
            own[f"{kind}.variables"] = seen.variables
            own[f"{kind}.groups"] = seen.groups
            values = {name: value for name, value in own.items() if value != []}
            for name, value in _attributes(file).items():
                values.setdefault(f"{kind}.{name}", value)
        problem = f"Only its first {_MOST} groups and variables were looked at." if seen.cut else ""
        text = "\n".join([*seen.variables, *seen.words]) if wanted is Wanted.CONTENT else ""
        return fitted(kind, values, text=text, problem=problem)


class _Seen:
    """What a walk found."""

    def __init__(self) -> None:
        self.groups: list[str] = []
        self.variables: list[str] = []
        self.dimensions: dict[str, int] = {}
        self.words: list[str] = []
        self.left = _MOST
        self.cut = False


def _walk(group: h5py.Group, path: str, depth: int, seen: _Seen) -> None:
    """Note what lies in a group. Links into other files are not followed, nor those that lead around in circles."""
    import h5py  # noqa: PLC0415 - imported where a file is read

    for name in group:
        if seen.left <= 0:
            seen.cut = True
            return
        seen.left -= 1
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        one = group[name]
        if isinstance(one, h5py.Group):
            seen.groups.append(path + name)
            if depth < _DEPTH:
                _walk(one, f"{path}{name}/", depth + 1, seen)
        elif isinstance(one, h5py.Dataset) and _note_dimension(one, path + name, seen):
            seen.variables.append(path + name)
            seen.words.append(_text(_attribute(one, "long_name")))


def _note_dimension(one: h5py.Dataset, name: str, seen: _Seen) -> bool:
    """Note a dimension of netCDF, and say whether it is a variable as well: netCDF names those that are not so."""
    if _text(_attribute(one, "CLASS")) != "DIMENSION_SCALE":
        return True
    seen.dimensions[name] = int(one.shape[0]) if one.shape else 0
    return not _text(_attribute(one, "NAME")).startswith("This is a netCDF dimension but not a netCDF variable")


def _attributes(file: h5py.File) -> dict[str, object]:
    """Return the attributes of the whole file, but those that are the libraries' own."""
    found: dict[str, object] = {}
    for name in file.attrs:
        if len(found) >= _ATTRIBUTES:
            break
        if not name.startswith("_"):
            value = _attribute(file, name)
            if value is not None:
                found[name] = value
    return found


def _attribute(one: h5py.HLObject, name: str) -> object:
    """Return an attribute that is short and plain, else None."""
    if name not in one.attrs or one.attrs.get_id(name).get_storage_size() > _LONG:
        return None
    try:
        value: Any = one.attrs[name]
    except (OSError, TypeError, ValueError, KeyError):
        return None  # a type that has no form in Python
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        value = [item for item in value[:50] if isinstance(item, str | bytes | int | float)]
        return (value[0] if len(value) == 1 else value) or None
    return value if isinstance(value, str | bytes | int | float) else None


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else ""
