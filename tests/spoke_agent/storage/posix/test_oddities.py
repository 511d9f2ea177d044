"""What is odd in a directory, found on the real file system."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from spoke_agent.storage.posix import oddities
from spoke_agent.storage.posix.oddities import find
from tests.spoke_agent.storage.posix.trees import Seen


def kinds(seen: Seen, **named: int) -> dict[str, int]:
    return {one.what: one.count for one in find(seen.top, **named).found}


def test_a_plain_tree_has_nothing_odd(seen: Seen) -> None:
    seen.put("a/b"), seen.put("c")
    found = find(seen.top)
    assert (found.found, found.looked_at, found.whole) == ((), 3, True)


def test_every_kind_is_found_counted_and_named(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    os.mkfifo(seen.top / "fifo")
    there = socket.socket(socket.AF_UNIX)
    there.bind(str(seen.top / "socket"))
    there.close()
    os.link(seen.put("once"), seen.top / "twice")
    seen.put("README"), seen.put("readme")
    seen.put("\u00c5ngstr\u00f6m"), seen.put("A\u030angstro\u0308m")
    seen.put("x" * 228), seen.put("y" * 227)
    seen.put("meta/acl"), seen.put("ws/meta/fine"), seen.put(".sgwtmp/x")
    os.close(os.open(os.fsencode(seen.top) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    (seen.top / "ws/out").symlink_to(tmp_path / "out")
    (seen.top / "ws/absolute").symlink_to("/etc/passwd")
    (seen.top / "ws/across").symlink_to("../once")
    (seen.top / "folder").symlink_to("ws")
    (seen.top / "broken").symlink_to("nothing")
    (seen.top / "pipe").symlink_to("fifo")
    assert kinds(seen) == {
        oddities.OUTBOUND: 2,
        oddities.ACROSS: 1,
        oddities.FIFO: 2,
        oddities.SOCKET: 1,
        oddities.LINKED: 2,
        oddities.CASE: 1,
        oddities.TWINS: 1,
        oddities.LONG: 1,
        oddities.OWN: 1,
        oddities.LEFT: 1,
        oddities.MANGLED: 1,
        oddities.INSIDE: 1,
        oddities.BROKEN: 1,
    }
    found = find(seen.top)
    assert {one.what for one in found.found if one.refused} == {oddities.OUTBOUND, oddities.FIFO, oddities.SOCKET}
    assert set(found.refused) == {"ws/out", "ws/absolute", "ws/across", "fifo", "socket", "pipe"}


def test_what_is_found_is_safe_to_print(seen: Seen) -> None:
    (seen.top / "evil\x1b[2J\nname").symlink_to("/etc")
    (found,) = find(seen.top).found
    assert all(sample.isprintable() for sample in found.samples)


def test_only_so_many_entries_are_looked_at(seen: Seen) -> None:
    for number in range(20):
        seen.put(f"{number}")
    found = find(seen.top, limit=10)
    assert (found.looked_at, found.whole) == (10, False)


def test_a_device_is_found(seen: Seen) -> None:
    try:
        os.mknod(seen.top / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs root")
    (found,) = find(seen.top).found
    assert (found.what, found.refused) == (oddities.DEVICE, True)


def test_a_path_that_no_key_can_say_is_found(seen: Seen) -> None:
    seen.put("/".join(["d" * 200] * 5 + ["x" * 30]))
    assert oddities.TOO_LONG in kinds(seen)
    assert find(seen.top).whole


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find(tmp_path / "nothing")
