"""What kind of file system a directory lies on, and which one: whether it is still there, and what can be relied on there."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from pathlib import Path
from typing import Final

_KINDS: Final = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x47504653: "gpfs",
    0x0BD00BD0: "lustre",
    0x19830326: "beegfs",
    0x00C36400: "ceph",
    0x5346414F: "afs",
    0x4D44: "vfat",
    0x2011BAB0: "exfat",
    0x5346544E: "ntfs",
    0xEF53: "ext",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
}
"""``statfs(2)``: f_type."""
NETWORK: Final = frozenset({"nfs", "cifs", "smb2", "smb", "fuse", "9p", "gpfs", "lustre", "beegfs", "ceph", "afs"})
"""The kernel does not report what others change there. FUSE may be anything, so nothing is relied upon."""
UNSTEADY: Final = frozenset({"cifs", "smb2", "smb", "fuse", "9p", "vfat", "exfat"})
"""Inode numbers may be made up anew with every mount."""
_BORN: Final = frozenset({"ext", "xfs", "btrfs"})
_BTIME: Final = 0x800
"""``statx(2)``: STATX_BTIME."""
_BY_DEVICE: Final = frozenset({"xfs"})
"""The id that ``statfs`` gives is the device's number, which another order of disks changes."""


def kind_of(path: Path | str) -> str:
    """Return the kind of file system below ``path``: a word of the list above, or its number. Raises OSError."""
    if sys.platform != "linux":
        return "other"
    library = ctypes.CDLL(None, use_errno=True)
    answer = (ctypes.c_long * 64)()
    if library.statfs(os.fsencode(path), answer) != 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number), str(path))
    number = answer[0] & 0xFFFFFFFF
    return _KINDS.get(number, f"{number:x}")


def born(path: Path | str) -> int:
    """Return when a directory was made, in nanoseconds; 0 where this file system does not say for good.

    An inode number is given again to the next directory; the time at which one was made is not.
    """
    if sys.platform != "linux" or kind_of(path) not in _BORN:
        return 0
    library = ctypes.CDLL(None, use_errno=True)
    answer = ctypes.create_string_buffer(256)
    if not hasattr(library, "statx") or library.statx(-100, os.fsencode(path), 0, _BTIME, answer) != 0:
        return 0
    (mask,) = struct.unpack_from("I", answer, 0)
    seconds, nanoseconds = struct.unpack_from("qI", answer, 80)
    return int(seconds * 1_000_000_000 + nanoseconds) if mask & _BTIME else 0


def networked(path: Path | str) -> bool:
    """Say whether changes made elsewhere may come without the kernel knowing. Raises OSError."""
    return kind_of(path) in NETWORK


def steady(path: Path | str) -> bool:
    """Say whether a file keeps its inode number for as long as it is there. Raises OSError."""
    return kind_of(path) not in UNSTEADY


def volume_of(path: Path | str) -> str:
    """Return what tells this file system from another that may be mounted in its place. Raises OSError."""
    kind = kind_of(path)
    found = os.statvfs(path).f_fsid
    if kind in _BY_DEVICE:
        return f"{kind} {_uuid(Path(path).stat().st_dev) or f'{found:x}'}"
    return f"{kind} {found:x}"


def _uuid(device: int) -> str:
    try:
        links = list(Path("/dev/disk/by-uuid").iterdir())
    except OSError:
        return ""
    for link in links:
        try:
            if link.stat().st_rdev == device:
                return link.name
        except OSError:
            continue
    return ""
