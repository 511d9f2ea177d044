"""``wio://`` in real libraries, on workspaces of two real nodes: what they write is what they read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
import zarr

from protocol.grants import Permission
from tests.tools.conftest import World
from wio.fs import WioFileSystem

pytestmark = pytest.mark.real

WORKSPACES = ("alice/scans", "whole", "alice/store")
"""One by its whole name, one in a bucket of its own, one on another node."""

FRAME = pd.DataFrame({"a": range(1000), "b": [f"row {number} ü" for number in range(1000)]})


@pytest.fixture
def fs(as_alice: World) -> Iterator[WioFileSystem]:
    made = WioFileSystem(config=str(as_alice.alice.folder), hub=as_alice.federation.hub.url, skip_instance_cache=True)
    yield made
    made.close()


@pytest.fixture
def as_bob(world: World) -> Iterator[WioFileSystem]:
    with world.session(world.bob) as session:
        made = WioFileSystem(session=session, skip_instance_cache=True)
        yield made
        made.close()


# ------------------------------------------------------------------------------------------------------ libraries


@pytest.mark.parametrize("workspace", WORKSPACES)
@pytest.mark.usefixtures("as_alice")
def test_pandas(folder: str, workspace: str) -> None:
    FRAME.to_parquet(f"wio://{workspace}/{folder}/t.parquet")
    FRAME.to_csv(f"wio://{workspace}/{folder}/t.csv", index=False)
    assert pd.read_parquet(f"wio://{workspace}/{folder}/t.parquet").equals(FRAME)
    assert pd.read_csv(f"wio://{workspace}/{folder}/t.csv").equals(FRAME)


@pytest.mark.usefixtures("as_alice")
def test_pyarrow_datasets(fs: WioFileSystem, folder: str) -> None:
    table = pa.table({"day": [1, 1, 2], "value": [0.5, 1.5, 2.5]})
    for workspace in WORKSPACES:
        ds.write_dataset(table, f"{workspace}/{folder}", filesystem=fs, format="parquet", partitioning=["day"])
        back = ds.dataset(f"{workspace}/{folder}", filesystem=fs, partitioning=["day"]).to_table().sort_by("value")
        assert back.column("value").to_pylist() == [0.5, 1.5, 2.5]


def test_duckdb(fs: WioFileSystem, folder: str) -> None:
    connection = duckdb.connect()
    connection.register_filesystem(fs)
    for workspace in WORKSPACES:
        numbers = connection.sql("SELECT range AS a FROM range(1000)")
        numbers.write_parquet(f"wio://{workspace}/{folder}/one.parquet")
        numbers.write_parquet(f"wio://{workspace}/{folder}/two.parquet")
        found = connection.read_parquet(f"wio://{workspace}/{folder}/*.parquet").aggregate("count(*), sum(a)").fetchone()
        assert found == (2000, 999 * 1000)
    connection.close()


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # dask calls pandas so, not we
@pytest.mark.usefixtures("as_alice")
def test_dask_with_processes_of_its_own(folder: str) -> None:
    dd.from_pandas(FRAME, npartitions=4).to_parquet(f"wio://alice/scans/{folder}/", compute_kwargs={"scheduler": "processes"})
    back = dd.read_parquet(f"wio://alice/scans/{folder}/").compute(scheduler="processes", num_workers=2)
    pd.testing.assert_frame_equal(back.reset_index(drop=True), FRAME, check_dtype=False)  # Dask has another kind of text


@pytest.mark.parametrize("workspace", ["alice/scans", "alice/store"])
@pytest.mark.usefixtures("as_alice")
def test_zarr(folder: str, workspace: str) -> None:
    content = np.arange(10_000, dtype="i4").reshape(100, 100)
    array = zarr.open_array(f"wio://{workspace}/{folder}.zarr", mode="w", shape=(100, 100), chunks=(30, 30), dtype="i4")
    array[:] = content
    back = zarr.open_array(f"wio://{workspace}/{folder}.zarr", mode="r")
    assert np.array_equal(back[:], content)


# ------------------------------------------------------------------------------------------------------ the tree


def test_a_tree_is_seen_as_it_is(fs: WioFileSystem, world: World, folder: str) -> None:
    names = {"a.txt": b"a", "sub/b.txt": b"bb", "sub/deep/c ü.bin": b"ccc", "sub/d#%+?.txt": b"d"}
    at = world.spot(f"scans/{folder}")
    for name, content in names.items():
        world.owner(at.node).put_object(Bucket=at.bucket, Key=f"{at.key}/{name}", Body=content)
    world.owner(at.node).put_object(Bucket=at.bucket, Key=f"{at.key}/empty/", Body=b"")  # a marker, as other tools leave them
    top = f"alice/scans/{folder}"
    assert fs.find(top) == sorted(f"{top}/{name}" for name in names)
    assert sorted(fs.ls(top, detail=False)) == [f"{top}/a.txt", f"{top}/empty", f"{top}/sub"]
    assert fs.ls(f"{top}/a.txt", detail=False) == [f"{top}/a.txt"]
    assert fs.glob(f"{top}/**/*.txt") == sorted(f"{top}/{name}" for name in names if name.endswith(".txt"))
    assert fs.find(top, maxdepth=1) == [f"{top}/a.txt"]
    assert set(fs.find(top, withdirs=True)) > {top, f"{top}/sub", f"{top}/sub/deep"}
    assert fs.du(top) == 7
    assert [fs.isdir(top), fs.isdir(f"{top}/sub/"), fs.isfile(f"{top}/a.txt"), fs.isdir(f"{top}/a.txt")] == [
        True,
        True,
        True,
        False,
    ]
    assert fs.cat(top, recursive=True) == {f"{top}/{name}": content for name, content in names.items()}
    info = fs.info(f"wio://{top}/sub/b.txt")
    assert (info["name"], info["size"], info["type"]) == (f"{top}/sub/b.txt", 2, "file")
    assert fs.modified(f"{top}/a.txt") == info["LastModified"] or fs.modified(f"{top}/a.txt").tzinfo is not None
    assert fs.cat_file(f"{top}/sub/deep/c ü.bin", start=1, end=2) == b"c"


def test_workspaces_and_their_owners_are_folders(fs: WioFileSystem) -> None:
    assert "alice" in fs.ls("", detail=False)
    assert {"alice/scans", "alice/store"} <= set(fs.ls("wio://alice", detail=False))
    assert fs.isdir("alice")
    assert fs.isdir("scans")
    assert fs.isdir("alice/scans/")
    assert fs.find("whole/nothing-here") == []
    assert not fs.exists("alice/nope")
    assert not fs.exists("nope/at/all")
    with pytest.raises(FileNotFoundError, match="nope"):
        fs.ls("alice/nope")
    with pytest.raises(IsADirectoryError):
        fs.pipe_file("alice/scans", b"x")


def test_folders_go_up_and_down_and_from_node_to_node(fs: WioFileSystem, folder: str, tmp_path: Path) -> None:
    (tmp_path / "up" / "sub").mkdir(parents=True)
    (tmp_path / "up" / "sub" / "a.txt").write_bytes(b"a" * 1000)
    (tmp_path / "up" / "b ü.txt").write_bytes(b"b")
    fs.put(f"{tmp_path}/up/", f"scans/{folder}/", recursive=True)
    for target in ("more", "whole", "store"):
        fs.cp(f"scans/{folder}/", f"{target}/{folder}/", recursive=True)
        fs.get(f"{target}/{folder}/", f"{tmp_path}/{target}/", recursive=True)
        assert (tmp_path / target / "sub" / "a.txt").read_bytes() == b"a" * 1000
        assert (tmp_path / target / "b ü.txt").read_bytes() == b"b"
    fs.mv(f"scans/{folder}/sub/a.txt", f"store/{folder}/moved.txt")
    assert fs.find(f"scans/{folder}") == [f"scans/{folder}/b ü.txt"]
    fs.rm(f"store/{folder}", recursive=True)
    assert fs.find(f"store/{folder}") == []


def test_a_big_file_is_written_as_it_comes_and_read_in_pieces(fs: WioFileSystem, folder: str, big: Path) -> None:
    with big.open("rb") as source, fs.open(f"store/{folder}/big", "wb") as target:
        while chunk := source.read(1 << 22):
            target.write(chunk)
    assert fs.size(f"store/{folder}/big") == big.stat().st_size
    with big.open("rb") as source, fs.open(f"store/{folder}/big", "rb", block_size=1 << 22) as back:
        while chunk := source.read(1 << 22):
            assert back.read(len(chunk)) == chunk
        assert back.read() == b""
    fs.rm(f"store/{folder}/big")


async def test_an_asynchronous_program_uses_it_too(as_alice: World, folder: str) -> None:
    fs = fsspec.filesystem("wio", asynchronous=True, skip_instance_cache=True, config=str(as_alice.alice.folder))
    await fs._pipe_file(f"scans/{folder}/a", b"content")
    assert await fs._cat_file(f"scans/{folder}/a") == b"content"
    assert [name async for name, _, _ in fs._walk(f"scans/{folder}")] == [f"scans/{folder}"]
    await fs.aclose()


# ------------------------------------------------------------------------------------------------------ rights


def test_what_one_may_not_is_a_permission_error_that_says_why(world: World, as_bob: WioFileSystem, folder: str) -> None:
    with pytest.raises(FileNotFoundError, match="alice/scans"):
        as_bob.ls("alice/scans")
    world.client.share("more", "bob", Permission.READ)
    try:
        assert as_bob.isdir("alice/more")
        with pytest.raises(PermissionError, match="to read only"):
            as_bob.pipe_file(f"alice/more/{folder}", b"x")
        with pytest.raises(PermissionError, match="to read only"), as_bob.open(f"alice/more/{folder}", "wb") as file:
            file.write(b"x")
    finally:
        world.client.unshare("more", "bob")


def test_a_share_that_ends_in_the_middle_of_the_work_is_said_so(world: World, as_bob: WioFileSystem, folder: str) -> None:
    at = world.spot(f"more/{folder}")
    world.owner(at.node).put_object(Bucket=at.bucket, Key=f"{at.key}/f", Body=bytes(1 << 20))
    world.client.share("more", "bob", Permission.READ)
    with as_bob.open(f"alice/more/{folder}/f", "rb", block_size=1 << 16, cache_type="none") as file:
        assert file.read(1 << 16) == bytes(1 << 16)
        world.client.unshare("more", "bob")
        with pytest.raises(PermissionError) as caught:
            file.read(1 << 16)
    assert caught.value.errno == errno.EACCES
    assert "alice/more" in str(caught.value)
    with pytest.raises(PermissionError):  # never FileNotFoundError: zarr would take that for an empty chunk
        as_bob.cat_file(f"alice/more/{folder}/f")
    with pytest.raises(PermissionError):
        as_bob.info(f"alice/more/{folder}/f")


def test_it_is_registered(as_alice: World) -> None:
    made: Any = fsspec.filesystem("wio", config=str(as_alice.alice.folder))
    assert type(made) is WioFileSystem
    assert as_alice.federation.hub.url in made.fsid
