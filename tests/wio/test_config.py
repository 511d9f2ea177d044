"""The configuration: private, whole or not at all, and never one hub's token for another."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from protocol.errors import BadSetting, DiskFull, NotSignedIn
from wio import private
from wio.config import Account, Config

HUB = "https://hub.example"
ALICE = Account("token-a", "alice", "alice@lab.example", 1)


def config(folder: Path, **environment: str) -> Config:
    return Config(folder, environment)


def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    config(tmp_path / "new" / "wio").remember(HUB, ALICE)
    path = tmp_path / "new" / "wio" / "config.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_private_again_after_a_change(tmp_path: Path) -> None:
    config(tmp_path).remember(HUB, ALICE)
    (tmp_path / "config.json").chmod(0o644)
    config(tmp_path).remember(HUB, ALICE)
    assert stat.S_IMODE((tmp_path / "config.json").stat().st_mode) == 0o600


def test_the_directory_is_wio_config_if_that_is_set(tmp_path: Path) -> None:
    assert Config.here({"WIO_CONFIG": str(tmp_path / "x")}).directory == tmp_path / "x"
    assert Config.here({}).directory.name == "wio"


def test_nobody_signed_in_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotSignedIn) as caught:
        config(tmp_path).seat()
    assert "wio login" in caught.value.todo


def test_login_is_remembered_and_logout_keeps_only_the_address(tmp_path: Path) -> None:
    config(tmp_path).remember(HUB, ALICE)
    seat = config(tmp_path).seat()
    assert (seat.hub, seat.token, seat.username) == (HUB, "token-a", "alice")
    config(tmp_path).forget(HUB)
    assert b"token-a" not in (tmp_path / "config.json").read_bytes()
    assert config(tmp_path).hub() == HUB


def test_the_environment_chooses_hub_and_token(tmp_path: Path) -> None:
    config(tmp_path).remember(HUB, ALICE)
    seat = config(tmp_path, WIO_HUB="http://127.0.0.1:9/", WIO_TOKEN="t").seat()
    assert (seat.hub, seat.token) == ("http://127.0.0.1:9", "t")
    assert config(tmp_path, WIO_TOKEN="t").seat().hub == HUB


def test_a_token_is_never_sent_to_another_hub(tmp_path: Path) -> None:
    config(tmp_path).remember(HUB, ALICE)
    with pytest.raises(NotSignedIn, match=r"other\.example"):
        config(tmp_path, WIO_HUB="https://other.example").seat()


def test_several_hubs_are_remembered_and_the_last_is_the_usual_one(tmp_path: Path) -> None:
    config(tmp_path).remember(HUB, ALICE)
    config(tmp_path).remember("https://two.example", Account("token-2", "al", "a@x.example", 1))
    assert config(tmp_path).seat().token == "token-2"
    assert config(tmp_path, WIO_HUB=HUB).seat().token == "token-a"


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"hub": 1}', b'{"hub": "x", "more": 1}', b"\xff"])
def test_a_spoiled_file_is_named_with_a_way_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BadSetting, match=r"config\.json") as caught:
        config(tmp_path).settings()
    assert "wio login" in caught.value.todo


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private.write(tmp_path / "f", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull):
        private.write(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_directory_that_cannot_be_made_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadSetting, match="file"):
        config(tmp_path / "file" / "below").remember(HUB, ALICE)


def test_no_repr_shows_a_token(tmp_path: Path) -> None:
    config(tmp_path).remember(HUB, ALICE)
    assert "token-a" not in repr(config(tmp_path).settings())
    assert "token-a" not in repr(config(tmp_path).seat())
