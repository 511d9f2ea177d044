"""Every tool does the same work with wio's keys: list, glob, big files up and down, copies. Compared byte for byte."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import World
from tests.tools.drivers import DRIVERS, Driver, Shell, Spot

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TREE = {
    "a.txt": b"a",
    "sub/b.txt": b"bb",
    "sub/deep er/c ü.txt": b"ccc",
    "sub/d.bin": bytes(range(256)) * 9,
    "e+(1) #%.txt": b"e",
}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(params=DRIVERS)
def tool(request: pytest.FixtureRequest, world: World, set_up: Callable[..., None]) -> Driver:
    if request.param == "rclone" and not shutil.which("rclone"):
        pytest.skip("rclone is not on PATH: apt-get install rclone")
    if request.param not in {"mc", "wio"}:
        set_up("boto3" if request.param == "pyarrow" else request.param)  # PyArrow reads the same profiles
    made: Driver = DRIVERS[request.param](world.environment(world.alice))  # type: ignore[assignment]  # each has the verbs
    return made


@pytest.fixture
def spot(world: World, folder: str) -> Callable[[str], Spot]:
    return lambda workspace: world.spot(f"{workspace}/{folder}")


def test_what_is_there_is_listed_with_all_its_folders_and_found_by_pattern(
    world: World, tool: Driver, spot: Callable[[str], Spot]
) -> None:
    at = spot("scans")
    for name, content in TREE.items():
        world.owner(at.node).put_object(Bucket=at.bucket, Key=f"{at.key}/{name}", Body=content)
    world.owner(at.node).put_object(Bucket=at.bucket, Key=f"{at.key}-beside/x.txt", Body=b"x")
    assert tool.names(at) == set(TREE)
    assert tool.matching(at, "*.bin") == {"sub/d.bin"}


def test_a_big_file_goes_up_in_parts_and_comes_back_as_it_was(
    world: World, tool: Driver, spot: Callable[[str], Spot], big: Path, tmp_path: Path
) -> None:
    at = spot("scans")
    tool.put(big, at, "big.bin")
    stored = world.owner(at.node).head_object(Bucket=at.bucket, Key=f"{at.key}/big.bin")
    assert stored["ContentLength"] == big.stat().st_size
    assert "-" in stored["ETag"], "it went up in one part"
    tool.get(at, "big.bin", tmp_path / "back.bin")
    assert digest(tmp_path / "back.bin") == digest(big)
    world.owner(at.node).delete_object(Bucket=at.bucket, Key=f"{at.key}/big.bin")


def test_files_are_copied_from_one_workspace_to_another(
    world: World, tool: Driver, spot: Callable[[str], Spot], tmp_path: Path
) -> None:
    name, content = "sub/c ü.txt", bytes(range(256)) * 99
    (tmp_path / "file").write_bytes(content)
    tool.put(tmp_path / "file", spot("scans"), name)
    for workspace in ("more", "whole", *(["store"] if tool.between else [])):
        target = spot(workspace)
        tool.copy(spot("scans"), name, target)
        stored = world.owner(target.node).get_object(Bucket=target.bucket, Key=f"{target.key}/{name}")
        assert stored["Body"].read() == content
        tool.get(target, name, tmp_path / workspace)
        assert (tmp_path / workspace).read_bytes() == content


@pytest.mark.parametrize("program", ["restic"])
def test_restic_keeps_a_whole_tree_and_gives_it_back(
    world: World, program: str, set_up: Callable[..., None], big: Path, tmp_path: Path
) -> None:
    if not shutil.which(program):
        pytest.skip(f"{program} is not on PATH: apt-get install {program}")
    world.client.create_workspace("backups", root="lab3/boxes")
    set_up("restic", "backups")
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    big.rename(tmp_path / "tree" / "sub" / "big.bin")
    (tmp_path / "tree" / "c ü.txt").write_bytes(b"content")
    shell = Shell(world.environment(world.alice) | {"RESTIC_PASSWORD": "p", "RESTIC_CACHE_DIR": str(tmp_path / "cache")})
    settings = world.alice.folder / "tools" / "restic-lab3-backups.env"

    def restic(words: str) -> str:
        return shell.run("sh", "-c", f". '{settings}' && restic {words}")

    restic("init")
    restic(f"backup --host here '{tmp_path}/tree'")
    assert "1 snapshots" in restic("snapshots")
    restic(f"restore latest --target '{tmp_path}/back'")
    back = tmp_path / "back" / (tmp_path / "tree").relative_to("/")
    assert digest(back / "sub" / "big.bin") == digest(tmp_path / "tree" / "sub" / "big.bin")
    assert (back / "c ü.txt").read_bytes() == b"content"
    assert "no errors were found" in restic("check --read-data")
