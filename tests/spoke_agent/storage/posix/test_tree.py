"""A tree as the index sees it, on the real file system."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from protocol.errors import Conflict, RootMissing, StorageUnreachable
from spoke_agent.storage.posix import tree as trees
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.storage.posix.sidecar import Sidecar
from spoke_agent.storage.posix.tree import Tree
from spoke_agent.storage.posix.walking import Request, Walk, parts_of
from tests.spoke_agent.storage.posix.trees import Seen, root

AWKWARD = [
    "a.b",
    "a/b",
    "a/b.c",
    "a/b/c",
    "a0",
    "a-x/1",
    "a b/ c",
    "a",
    "ä/ö",
    "ä.txt",
    "Z",
    "z/\U0001f600",
    "z/\uffff",
    "~",
    "!",
    "x\ny",
    "deep/" * 20 + "end",
]


def _unlike(names: list[str]) -> list[str]:
    """Leave out files that would have to be folders as well."""
    return [one for one in names if not any(other.startswith(one + "/") for other in names)]


# ------------------------------------------------------------------------------------------------ listing


async def test_keys_come_in_the_order_of_their_bytes(seen: Seen) -> None:
    wanted = _unlike(AWKWARD)
    for key in wanted:
        seen.put(key)
    assert await seen.keys() == sorted(wanted, key=str.encode)


async def test_a_listing_goes_on_after_any_key_and_below_any_prefix(seen: Seen) -> None:
    wanted = sorted(_unlike(AWKWARD), key=str.encode)
    for key in wanted:
        seen.put(key)
    for after in [*wanted, "a", "a/", "a/b", "a0/", "zzz", "\x00"]:
        assert await seen.keys(start_after=after) == [key for key in wanted if key > after], after
    for prefix in ["a", "a/", "a/b", "a/b/", "ä", "deep/deep/d", "nothing", "nothing/", "a//", "../", "deep/" * 21]:
        assert await seen.keys(prefix) == [key for key in wanted if key.startswith(prefix)], prefix
    assert await seen.keys("a/", start_after="a/b.c") == ["a/b/c"]


async def test_a_root_that_is_a_folder_of_the_bucket_has_keys_of_its_own(seen: Seen) -> None:
    seen.put("in/a"), seen.put("in/b/c"), seen.put("out/a")
    assert await seen.keys(under="in/") == ["a", "b/c"]
    assert await seen.keys(under="in/", start_after="a") == ["b/c"]
    assert (found := await seen.tree.look(root("in/"), "b/c")) is not None
    assert found.key == "b/c"


async def test_a_large_listing_comes_from_a_process_of_its_own_and_says_the_same(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        seen.put(f"d{number % 3}/{number}")
    whole = await seen.entries()
    monkeypatch.setattr(trees, "SMALL", 0)
    started: list[object] = []
    start = asyncio.create_subprocess_exec

    async def counted(*arguments: object, **named: object) -> object:
        if "import walking" in str(arguments):  # what is put right afterwards has a process of its own as well
            started.append(arguments)
        return await start(*arguments, **named)  # type: ignore[arg-type] - handed on as it came

    monkeypatch.setattr(asyncio, "create_subprocess_exec", counted)
    assert await seen.entries() == whole
    assert await seen.entries(start_after="d1/1") == [one for one in whole if one.key > "d1/1"]
    assert len(started) == 2


async def test_a_listing_that_nobody_wants_any_more_leaves_no_process(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "SMALL", 0)
    for number in range(6000):
        (seen.top / f"{number}").touch()
    listing = seen.tree.scan(root())
    assert await anext(listing)
    await listing.aclose()  # type: ignore[attr-defined] - it is an async generator
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True, check=False)  # noqa: ASYNC221 - a program that ends at once, in a test
    assert "walking" not in children.stdout


async def test_folders_split_a_root(seen: Seen) -> None:
    for number in range(5):
        seen.put(f"only/d{number}/x")
    assert await seen.tree.ranges(root()) == [f"only/d{number}/" for number in range(5)]
    assert await seen.tree.ranges(root("only/")) == [f"d{number}/" for number in range(5)]
    assert await seen.tree.ranges(root(), "nothing/") == [""]


async def test_a_scan_and_a_look_say_the_same(seen: Seen) -> None:
    for key in _unlike(AWKWARD):
        seen.put(key, key.encode())
    for entry in await seen.entries():
        assert await seen.tree.look(root(), entry.key) == entry


# ------------------------------------------------------------------------------------------------ etags


async def test_an_overwrite_with_the_same_size_and_time_is_another_file(seen: Seen) -> None:
    path = seen.put("a", b"one")
    (before,) = await seen.entries()
    path.write_bytes(b"two")
    os.utime(path, ns=(before.mtime, before.mtime))
    (after,) = await seen.entries()
    assert (after.size, after.mtime) == (before.size, before.mtime)
    assert after.etag != before.etag
    other = seen.put(".new", b"two")
    os.utime(other, ns=(before.mtime, before.mtime))
    other.replace(path)
    (last,) = await seen.entries()
    assert last.etag not in {before.etag, after.etag}


async def test_times_of_any_year_are_said_as_they_are(seen: Seen) -> None:
    """A clock that jumps makes files of the future and of the past; nothing here asks what time it is."""
    for name, ns in (("past", -(10**18)), ("future", 4 * 10**18), ("zero", 0)):
        path = seen.put(name)
        os.utime(path, ns=(ns, ns))
        found = await seen.tree.look(root(), name)
        assert found is not None
        assert found.mtime == ns
        assert await seen.tree.read(root(), name, found.etag, 0, 100) == b"content"


async def test_hard_links_are_files_each_with_its_name(seen: Seen) -> None:
    os.link(seen.put("a", b"same"), seen.top / "b")
    assert await seen.keys() == ["a", "b"]
    (seen.top / "a").write_bytes(b"changed")
    found = await seen.tree.look(root(), "b")
    assert found is not None
    assert found.size == 7


# ------------------------------------------------------------------------------------------------ what is not served


async def test_fifos_devices_and_sockets_are_never_opened_and_not_served(seen: Seen, tmp_path: Path) -> None:  # noqa: ARG001 - the fixture makes the place
    os.mkfifo(seen.top / "fifo")
    there = socket.socket(socket.AF_UNIX)
    there.bind(str(seen.top / "socket"))
    seen.put("file")
    async with asyncio.timeout(10):
        assert await seen.keys() == ["file"]
        assert await seen.tree.look(root(), "fifo") is None
        with pytest.raises(Conflict):
            await seen.tree.read(root(), "fifo", "", 0, 1)
        with pytest.raises(Conflict):
            await seen.tree.read(root(), "socket", "", 0, 1)
    there.close()
    assert seen.tree.refused("lab") == {"fifo", "socket"}
    (seen.top / "fifo").unlink()
    await seen.tree.look(root(), "fifo")
    assert seen.tree.refused("lab") == {"socket"}


async def test_whoever_compiles_policies_hears_what_must_not_be_served(seen: Seen) -> None:
    heard: list[tuple[str, frozenset[str]]] = []
    seen.tree.on_refused = lambda bucket, keys: heard.append((bucket, keys))
    seen.put("ws/file")
    await seen.keys()
    (seen.top / "ws/out").symlink_to("/etc")
    assert await seen.tree.look(root("ws/"), "out") is None
    assert heard == [("lab", frozenset({"ws/out"}))]
    await seen.keys()
    assert len(heard) == 1
    (seen.top / "ws/out").unlink()
    await seen.keys()
    assert heard[1:] == [("lab", frozenset())]


async def test_a_link_out_of_the_tree_is_not_followed(seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    seen.put("ws/file")
    (seen.top / "ws/folder").symlink_to(tmp_path / "secret")
    (seen.top / "ws/key").symlink_to(tmp_path / "secret" / "key")
    (seen.top / "ws/up").symlink_to("../../secret/key")
    assert await seen.keys() == ["ws/file"]
    for key in ("ws/folder/key", "ws/key", "ws/up"):
        assert await seen.tree.look(root(), key) is None
        with pytest.raises((Conflict, StorageUnreachable)):
            await seen.tree.read(root(), key, "", 0, 10)
    assert seen.tree.refused("lab") == {"ws/folder", "ws/key", "ws/up"}


async def test_a_link_gives_nobody_what_lies_in_another_folder(seen: Seen) -> None:
    seen.put("bob/secret")
    seen.put("alice/ws/x")
    (seen.top / "alice/ws/link").symlink_to("../../bob/secret")
    (seen.top / "alice/ws/all").symlink_to("../../bob")
    assert await seen.keys() == ["alice/ws/x", "bob/secret"]
    assert await seen.tree.look(root(), "alice/ws/all/secret") is None
    assert seen.tree.refused("lab") == {"alice/ws/link", "alice/ws/all"}


async def test_a_link_within_what_is_granted_as_a_whole_is_served(tmp_path: Path) -> None:
    seen = Seen(tmp_path, spaces=("ws/",))
    seen.put("ws/common/atlas", b"atlas!")
    seen.put("ws/sub/x")
    seen.put("other/y")
    (seen.top / "ws/sub/atlas").symlink_to("../common/atlas")
    (seen.top / "ws/sub/folder").symlink_to("../common")
    (seen.top / "ws/out").symlink_to("../other/y")
    assert await seen.keys() == ["other/y", "ws/common/atlas", "ws/sub/atlas", "ws/sub/x"]
    found = await seen.tree.look(root(), "ws/sub/atlas")
    assert found is not None
    assert found.size == 6
    assert await seen.tree.read(root(), "ws/sub/atlas", found.etag, 0, 10) == b"atlas!"
    assert seen.tree.refused("lab") == {"ws/out"}
    await seen.tree.close()


async def test_a_link_to_below_its_own_folder_is_served(seen: Seen) -> None:
    seen.put("v/2026/data", b"1")
    (seen.top / "v/newest").symlink_to("2026/data")
    (seen.top / "v/broken").symlink_to("nothing")
    (seen.top / "v/round").symlink_to("round")
    assert await seen.keys() == ["v/2026/data", "v/newest"]


async def test_names_that_are_no_text_are_counted_and_not_served(seen: Seen) -> None:
    seen.put("good")
    os.close(os.open(os.fsencode(seen.top) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    os.mkdir(os.fsencode(seen.top) + b"/d\xe4tei")  # noqa: PTH102 - a path of bytes
    assert await seen.keys() == ["good"]
    assert seen.tree.notes("lab").mangled == 2
    assert await seen.tree.look(root(), "\udcff\udcfe") is None


async def test_what_the_gateway_keeps_in_a_tree_is_not_shown(seen: Seen) -> None:
    for key in (
        ".sgwtmp/multipart/x",
        "ws/.sgwtmp/y",
        "ws/.a.txt.sgwtmp.1795581506706237908",
        "meta/acl",
        "ws/meta/good",
        ".hidden",
    ):
        seen.put(key)
    assert await seen.keys() == [".hidden", "ws/meta/good"]
    for key in (".sgwtmp/multipart/x", "meta/acl", "ws/.a.txt.sgwtmp.1795581506706237908"):
        assert await seen.tree.look(root(), key) is None
    assert await seen.tree.look(root(), "ws/meta/good") is not None


async def test_twins_by_case_and_by_composition_are_files_of_their_own(seen: Seen) -> None:
    names = ["\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "FILE", "file"]
    for name in names:
        seen.put(name, name.encode())
    assert set(await seen.keys()) == set(names)
    for name in names:
        found = await seen.tree.look(root(), name)
        assert found is not None
        assert await seen.tree.read(root(), name, found.etag, 0, 100) == name.encode()


@pytest.mark.parametrize("key", ["", "/", "a/", "a//b", "./a", "a/../b", "..", "a\0b", "meta/x", "x/.sgwtmp/y"])
async def test_a_key_that_no_file_has_is_not_there(seen: Seen, key: str) -> None:
    seen.put("a/b"), seen.put("b")
    assert await seen.tree.look(root(), key) is None
    assert key == "" or not parts_of(key) or key.endswith("/")


async def test_names_longer_than_any_are_not_there(seen: Seen) -> None:
    assert await seen.tree.look(root(), "x" * 300) is None
    assert await seen.keys("x" * 300 + "/") == []


# ------------------------------------------------------------------------------------------------ the root itself


async def test_a_directory_that_is_gone_is_missing_and_never_empty(seen: Seen) -> None:
    seen.put("a")
    before = await seen.tree.check_root(root())
    seen.top.rename(seen.top.with_name("elsewhere"))
    with pytest.raises(RootMissing):
        await seen.tree.check_root(root())
    with pytest.raises(RootMissing):
        await seen.keys()
    with pytest.raises(RootMissing):
        await seen.tree.look(root(), "a")
    seen.top.mkdir()
    assert await seen.tree.check_root(root()) != before
    seen.top.rmdir()
    seen.top.with_name("elsewhere").rename(seen.top)
    assert await seen.tree.check_root(root()) == before


async def test_a_directory_that_was_made_anew_is_another_root(seen: Seen) -> None:
    """Its inode number may well be the same: the file system gives those again."""
    before = await seen.tree.check_root(root())
    for _ in range(5):
        seen.top.rmdir(), seen.top.mkdir()
        assert await seen.tree.check_root(root()) != before


async def test_a_folder_of_the_bucket_that_comes_and_goes_leaves_the_root_itself(seen: Seen) -> None:
    """The gateway removes a folder with its last file, and makes it again with the next."""
    before = await seen.tree.check_root(root("projects/"))
    path = seen.put("projects/a")
    assert await seen.tree.check_root(root("projects/")) == before
    path.unlink(), path.parent.rmdir()
    assert await seen.tree.check_root(root("projects/")) == before
    assert await seen.keys(under="projects/") == []


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounting needs root")
async def test_an_unmounted_file_system_is_another_root(seen: Seen) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    (seen.top / "nas").mkdir()
    if library.mount(b"none", os.fsencode(seen.top / "nas"), b"tmpfs", 0, None) != 0:
        pytest.skip(f"this machine does not mount: {os.strerror(ctypes.get_errno())}")
    try:
        seen.put("nas/a")
        whole = Tree(Exports([Export("lab", str(seen.top / "nas"))]), Sidecar(seen.top.parent / "s2"))
        mounted = await seen.tree.check_root(root("nas/")), await whole.check_root(root())
    finally:
        library.umount2(os.fsencode(seen.top / "nas"), 2)
    unmounted = await seen.tree.check_root(root("nas/")), await whole.check_root(root())
    assert mounted[0] != unmounted[0]
    assert mounted[1] != unmounted[1]
    await whole.close()


# ------------------------------------------------------------------------------------------------ reading, permission


async def test_a_file_is_read_in_pieces_and_only_while_it_is_itself(seen: Seen) -> None:
    path = seen.put("a/b", b"0123456789")
    (entry,) = await seen.entries()
    assert await seen.tree.read(root(), "a/b", entry.etag, 3, 4) == b"3456"
    assert await seen.tree.read(root(), "a/b", entry.etag, 8, 10) == b"89"
    assert await seen.tree.read(root(), "a/b", entry.etag, 50, 10) == b""
    path.write_bytes(b"x")
    with pytest.raises(Conflict):
        await seen.tree.read(root(), "a/b", entry.etag, 0, 1)
    path.unlink()
    with pytest.raises(Conflict):
        await seen.tree.read(root(), "a/b", "", 0, 1)


_AS_NOBODY = """
import asyncio, sys, pathlib
from protocol.errors import NotAllowed
from spoke_agent.storage.posix.walking import Request, Walk
from tests.spoke_agent.storage.posix.trees import Seen, root
async def main():
    seen = Seen(pathlib.Path(sys.argv[1]), writable=())
    print(await seen.keys())
    print(seen.tree.notes("lab").unreadable)
    print(await seen.tree.look(root(), "closed/a"), (await seen.tree.look(root(), "open/shut")) is not None)
    try:
        await seen.tree.read(root(), "open/shut", "", 0, 1)
    except NotAllowed:
        print("not allowed")
    await seen.tree.close()
asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming somebody else needs root")
async def test_what_a_plain_user_may_not_list_is_noted_and_the_rest_is_served(seen: Seen) -> None:
    seen.put("closed/a"), seen.put("open/b"), seen.put("open/shut")
    (seen.top / "closed").chmod(0o700)
    (seen.top / "open/shut").chmod(0o600)
    for folder in [seen.top, *seen.top.parents]:
        if folder == Path(tempfile.gettempdir()):
            break
        folder.chmod(folder.stat().st_mode | 0o055)
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", _AS_NOBODY]
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, str(seen.top.parent)],
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["['open/b', 'open/shut']", "['closed/']", "None True", "not allowed"], done.stderr


async def test_a_directory_that_does_not_answer_is_unreachable_and_not_empty(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen.put("d/a")

    def hangs(*_: object, **__: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("spoke_agent.storage.posix.walking.os.open", hangs)
    with pytest.raises(StorageUnreachable):
        await seen.keys()
    with pytest.raises(StorageUnreachable):
        await seen.tree.look(root(), "d/a")
    monkeypatch.undo()
    assert await seen.keys() == ["d/a"]


def test_files_that_vanish_while_a_folder_is_listed_are_left_out(seen: Seen) -> None:
    for number in range(10):
        seen.put(f"d/{number}")
    walk = Walk(Request(str(seen.top)))
    pages = walk.pages(3)
    assert [row[0] for row in next(pages)] == ["d/0", "d/1", "d/2"]
    (seen.top / "d/5").unlink()
    assert [row[0] for page in pages for row in page] == ["d/3", "d/4", "d/6", "d/7", "d/8", "d/9"]


async def test_a_narrower_grant_closes_the_links_that_lead_out_of_it(tmp_path: Path) -> None:
    spaces = [""]
    seen = Seen(tmp_path)
    seen.tree._spaces = lambda _: spaces
    heard: list[frozenset[str]] = []
    seen.tree.on_refused = lambda _, keys: heard.append(keys)
    seen.put("alice/x"), seen.put("bob/secret")
    (seen.top / "alice/link").symlink_to("../bob/secret")
    assert await seen.keys() == ["alice/link", "alice/x", "bob/secret"]
    (seen.top / "alice/new").symlink_to("../bob")
    assert await seen.tree.look(root(), "alice/new") is None
    await seen.tree.regrant("lab", [""])
    assert heard == []
    await seen.tree.regrant("lab", ["alice/"])
    assert heard == [frozenset({"alice/link", "alice/new"})]
    spaces.append("alice/")
    assert await seen.keys() == ["alice/x", "bob/secret"]
    await seen.tree.close()


async def test_what_was_refused_before_a_restart_stays_so_until_a_whole_listing(seen: Seen) -> None:
    heard: list[frozenset[str]] = []
    seen.tree.on_refused = lambda _, keys: heard.append(keys)
    seen.tree.remember("lab", ["a/old", "b/old"])
    seen.put("b/x")
    await seen.keys("b/")
    assert heard == [frozenset({"a/old"})]
