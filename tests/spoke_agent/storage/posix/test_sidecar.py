"""What the gateway's sidecar is made to say of files; tests/integration/test_directory_changes.py has the real gateway."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spoke_agent.storage.posix.sidecar import ETAG, Sidecar, Verdict, judge
from spoke_agent.storage.posix.walking import TEMPORARY, etag_of
from tests.spoke_agent.storage.posix.trees import Seen, root

MS = 1_000_000


def upload(seen: Seen, key: str, content: bytes = b"content", etag: str = "md5") -> Path:
    """Do what the gateway does, in its order: content, checksums, etag, and then the name."""
    staged = seen.put(".staged", content)
    folder = seen.sidecar.folder / "lab" / key / "meta"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checksums").write_text("{}")
    (folder / "new").write_text(f'"{etag}"')
    (folder / "new").replace(folder / ETAG)
    (seen.top / key).parent.mkdir(parents=True, exist_ok=True)
    staged.replace(seen.top / key)
    return seen.top / key


def checksummed(seen: Seen, key: str) -> bool:
    return (seen.sidecar.folder / "lab" / key / "meta" / "checksums").exists()


async def test_a_file_from_outside_gets_the_etag_that_the_index_has(seen: Seen) -> None:
    seen.put("a/foreign")
    found = await seen.tree.look(root(), "a/foreign")
    assert found is not None
    assert seen.sidecar.etag("lab", "a/foreign") == found.etag
    assert len(found.etag) != 32, "an MD5 would be compared with the content"


async def test_a_scan_gives_etags_to_all_files(seen: Seen) -> None:
    for number in range(450):
        seen.put(f"d{number % 7}/{number}")
    listed = await seen.entries()
    await seen.tree.tended()
    assert {one.key: seen.sidecar.etag("lab", one.key) for one in listed} == {one.key: one.etag for one in listed}


async def test_only_where_somebody_may_write_files_get_etags(tmp_path: Path) -> None:
    seen = Seen(tmp_path, writable=("open/",))
    seen.put("open/a"), seen.put("archive/a"), seen.put("opener/a")
    await seen.entries()
    await seen.tree.look(root(), "archive/a")
    await seen.tree.tended()
    assert sorted(seen.sidecar.known("lab")) == ["open/a"]
    await seen.tree.close()


async def test_an_upload_keeps_its_etag_and_checksum(seen: Seen) -> None:
    upload(seen, "a")
    for _ in range(3):
        await seen.tree.look(root(), "a")
        assert seen.sidecar.etag("lab", "a") == "md5"
        assert checksummed(seen, "a")


@pytest.mark.parametrize("looked_at", [True, False])
async def test_an_upload_that_is_edited_on_disk_loses_etag_and_checksum(seen: Seen, looked_at: bool) -> None:
    path = upload(seen, "a")
    if looked_at:
        await seen.tree.look(root(), "a")
    at = path.stat().st_mtime_ns
    path.write_bytes(b"edited!")
    os.utime(path, ns=(at, at + 5 * MS))
    found = await seen.tree.look(root(), "a")
    assert found is not None
    assert seen.sidecar.etag("lab", "a") == found.etag
    assert not checksummed(seen, "a")


async def test_an_upload_that_another_file_is_moved_over_loses_them_too(seen: Seen) -> None:
    old = seen.put("old", b"from long ago")
    os.utime(old, ns=(0, 0))
    upload(seen, "a")
    await seen.tree.look(root(), "a")
    old.replace(seen.top / "a")
    await seen.tree.look(root(), "a")
    assert seen.sidecar.etag("lab", "a").startswith("wio-")
    assert not checksummed(seen, "a")


async def test_an_upload_over_an_upload_or_a_foreign_file_has_its_own_etag(seen: Seen) -> None:
    seen.put("a")
    await seen.tree.look(root(), "a")
    for etag in ("first", "second"):
        upload(seen, "a", etag=etag)
        await seen.tree.look(root(), "a")
        assert seen.sidecar.etag("lab", "a") == etag
        assert checksummed(seen, "a")


async def test_a_clock_that_jumped_back_hides_no_edit_of_what_was_looked_at(seen: Seen) -> None:
    """As if the upload and the look had happened tomorrow: the edit looks older than both."""
    path = upload(seen, "a")
    await seen.tree.look(root(), "a")
    kept = seen.sidecar.folder / "lab/a/meta" / ETAG
    tomorrow = path.stat().st_ctime_ns + 86_400 * 1000 * MS
    os.utime(kept, ns=(tomorrow, tomorrow))
    path.write_bytes(b"edited!")
    await seen.tree.look(root(), "a")
    assert not checksummed(seen, "a")
    assert seen.sidecar.etag("lab", "a").startswith("wio-")


async def test_a_file_of_the_future_is_judged_by_its_etag_alone(seen: Seen) -> None:
    path = seen.put("a")
    os.utime(path, ns=(4 * 10**18, 4 * 10**18))
    for _ in range(2):
        found = await seen.tree.look(root(), "a")
        assert found is not None
        assert seen.sidecar.verdict("lab", "a", path.stat(), found.etag) is Verdict.OURS


def test_what_is_judged_stale_and_what_not(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    found = path.stat()
    ours, at = etag_of(found), found.st_ctime_ns
    assert judge(ours, True, 0, found, ours) is Verdict.OURS
    assert judge("wio-1-2-3", True, at, found, ours) is Verdict.STALE
    assert judge("md5", False, at - 1, found, ours) is Verdict.STALE  # written to since
    assert judge("md5", False, at, found, ours) is Verdict.FRESH
    assert judge("md5", True, at, found, ours) is Verdict.SEALED
    assert judge("md5", True, at - 1, found, ours) is Verdict.STALE


async def test_a_file_that_is_gone_is_forgotten(seen: Seen) -> None:
    """Its etag would make ``If-None-Match: *`` refuse a new file of that name."""
    for key in ("a/b/one", "a/two", "three"):
        seen.put(key)
    await seen.entries()
    await seen.tree.tended()
    (seen.top / "a/two").unlink()
    assert await seen.tree.look(root(), "a/two") is None
    assert seen.sidecar.etag("lab", "a/two") == ""
    (seen.top / "a/b/one").unlink()
    await seen.entries()
    await seen.tree.tended()
    assert list(seen.sidecar.known("lab")) == ["three"]
    assert not (seen.sidecar.folder / "lab/a").exists()


async def test_an_upload_whose_file_has_not_appeared_yet_is_not_forgotten(seen: Seen) -> None:
    path = upload(seen, "a")
    path.unlink()
    await seen.tree.look(root(), "a")
    await seen.entries()
    await seen.tree.tended()
    assert seen.sidecar.etag("lab", "a") == "md5"


async def test_no_key_reaches_the_settings_of_a_bucket(seen: Seen) -> None:
    seen.sidecar.seed("lab")
    acl = (seen.sidecar.folder / "lab/meta/acl").read_bytes()
    for key in ("meta", "meta/acl", "../lab/meta", "..", "a/../meta/acl", ".sgwtmp/x", "x\0", "\udcff"):
        seen.sidecar.mark("lab", key, "wio-1-2-3")
        assert seen.sidecar.etag("lab", key) == ""
        assert not seen.sidecar.drop("lab", key)
    assert (seen.sidecar.folder / "lab/meta/acl").read_bytes() == acl
    assert [one.name for one in (seen.sidecar.folder / "lab").iterdir()] == ["meta"]


def test_an_access_list_that_is_there_stays(tmp_path: Path) -> None:
    sidecar = Sidecar(tmp_path)
    sidecar.seed("lab")
    (tmp_path / "lab/meta/acl").write_text("other")
    sidecar.seed("lab")
    assert (tmp_path / "lab/meta/acl").read_text() == "other"
    sidecar.forget("lab")
    assert not (tmp_path / "lab").exists()
    sidecar.forget("lab")


def test_uploads_that_nobody_ended_are_removed_and_living_ones_stay(tmp_path: Path) -> None:
    sidecar, top = Sidecar(tmp_path / "s"), tmp_path / "data"
    old, young = (top / TEMPORARY / "multipart" / "key" / name for name in ("old", "young"))
    for upload_folder in (old, young):
        upload_folder.mkdir(parents=True)
        (upload_folder / "1").write_text("part")
    for one in (old, old / "1"):
        os.utime(one, (1000, 1000))
    beside = tmp_path / "s/lab" / TEMPORARY / "multipart/key/old/meta"
    beside.mkdir(parents=True)
    assert len(sidecar.clean("lab", top, begun_before=2000)) == 1
    assert not old.exists()
    assert not beside.exists()
    assert young.exists()
    assert sidecar.clean("lab", top)
    assert list(top.iterdir()) == []
    assert sidecar.clean("lab", top) == []


def test_a_temporary_folder_that_is_the_owners_link_stays(tmp_path: Path) -> None:
    sidecar, top, elsewhere = Sidecar(tmp_path / "s"), tmp_path / "data", tmp_path / "scratch"
    top.mkdir(), (elsewhere / "multipart/key/upload").mkdir(parents=True)
    (top / TEMPORARY).symlink_to(elsewhere)
    assert len(sidecar.clean("lab", top)) == 1
    assert (top / TEMPORARY).is_symlink()
    assert not (elsewhere / "multipart/key").exists()
