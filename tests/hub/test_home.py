from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from hub.home import LOCK_FILE, SECRET_FILE, held, hold, make_home, open_secret, trouble
from protocol.errors import BadSetting, Conflict, DiskFull

_FRESH = bytes(range(32))


def test_the_data_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    data = tmp_path / "new" / "hub"
    make_home(data)
    make_home(data)
    assert data.stat().st_mode & 0o077 == 0
    assert list(data.iterdir()) == []


def test_a_data_directory_that_cannot_be_made_says_which_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadSetting) as caught:
        make_home(tmp_path / "file" / "hub")
    assert str(tmp_path / "file" / "hub") in str(caught.value)
    assert "WIO_DATA" in caught.value.todo


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such(tmp_path: Path, number: int) -> None:
    told = trouble(tmp_path, OSError(number, "full"))
    assert isinstance(told, DiskFull)
    assert told.retry


def test_two_hubs_never_share_a_data_directory(tmp_path: Path) -> None:
    with hold(tmp_path):
        assert held(tmp_path)
        with pytest.raises(Conflict, match="Another wio-hub") as caught, hold(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).read_text() in str(caught.value)
    assert not held(tmp_path)


def test_a_hub_that_was_killed_leaves_no_lock_behind(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib, hub.home\nwith hub.home.hold(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); input()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "held\n"
            assert held(tmp_path)
        finally:
            other.kill()
    assert not held(tmp_path)


def test_the_secret_is_made_once_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    first = open_secret(tmp_path, fresh=_FRESH)
    assert first == _FRESH.hex()
    assert open_secret(tmp_path, fresh=b"\xff" * 32) == first
    assert (tmp_path / SECRET_FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    open_secret(tmp_path, fresh=_FRESH)
    (tmp_path / SECRET_FILE).chmod(0o644)
    with pytest.raises(BadSetting, match="Others on this machine") as caught:
        open_secret(tmp_path, fresh=_FRESH)
    assert "chmod 600" in caught.value.todo
    assert _FRESH.hex() not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"0123", b"\xff\xfe" * 40])
def test_a_damaged_secret_is_refused_and_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / SECRET_FILE
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BadSetting):
        open_secret(tmp_path, fresh=_FRESH)
    assert path.read_bytes() == content
