"""``wio-hub backup``, ``restore``, ``restored``, ``verify`` and ``user disable``, as an operator runs them."""

from __future__ import annotations

import io
import json
import sqlite3
import stat
import tarfile
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from deploy.running import until
from tests.hub.test_cli import _PASSWORD, run, serving


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A hub's data directory with one administrator."""
    folder = tmp_path / "hub"
    made = run("user", "create", "ann@lab.example", "ann", "--admin", "--password-stdin", data=folder, stdin=f"{_PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    return folder


def _sql(data: Path, text: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(data / "hub.sqlite", isolation_level=None)) as connection:
        return connection.execute(text).fetchall()


def test_a_backup_that_is_restored_elsewhere_is_the_same_hub(data: Path, tmp_path: Path) -> None:
    file, elsewhere = tmp_path / "hub.tar", tmp_path / "elsewhere"
    with serving(data) as hub:
        key = hub.get("/hub").json()["key"]
        done = run("backup", str(file), "--json", data=data)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parts"] == ["hub.sqlite", "secret"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.glob(".wio-*")) == []

    put_back = run("restore", str(file), "--json", data=elsewhere)
    assert put_back.returncode == 0, put_back.stderr
    assert stat.S_IMODE((elsewhere / "secret").stat().st_mode) == 0o600
    assert _sql(elsewhere, "SELECT action FROM audit ORDER BY id DESC LIMIT 1") == [("hub.restored",)]
    assert run("verify", data=elsewhere).returncode == 0
    with serving(elsewhere) as hub:
        assert hub.get("/hub").json()["key"] == key


def test_a_backup_replaces_nothing_and_neither_does_restoring_one(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "hub.tar"
    assert run("backup", str(file), data=data).returncode == 0
    again = run("backup", str(file), data=data)
    assert again.returncode != 0
    assert "is there already" in again.stderr
    before = (data / "hub.sqlite").read_bytes()
    over = run("restore", str(file), data=data)
    assert over.returncode != 0
    assert "into an empty data directory only" in over.stderr
    assert (data / "hub.sqlite").read_bytes() == before


def test_a_secret_of_the_environment_is_not_in_the_backup_and_has_to_be_there_to_restore_it(tmp_path: Path) -> None:
    secret, file = "s" * 64, tmp_path / "hub.tar"
    assert run("init", data=tmp_path / "hub", WIO_SECRET=secret).returncode == 0
    done = run("backup", str(file), "--json", data=tmp_path / "hub", WIO_SECRET=secret)
    assert json.loads(done.stdout)["parts"] == ["hub.sqlite"]
    assert secret.encode() not in file.read_bytes()
    without = run("restore", str(file), data=tmp_path / "new")
    assert without.returncode != 0
    assert "Set WIO_SECRET" in without.stderr
    assert not (tmp_path / "new" / "hub.sqlite").exists()
    other = run("restore", str(file), data=tmp_path / "other", WIO_SECRET="o" * 64)
    assert other.returncode != 0
    assert "does not open the hub's signing key" in other.stderr
    assert run("restore", str(file), data=tmp_path / "new", WIO_SECRET=secret).returncode == 0


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "index", "secret"])
def test_nothing_but_a_hub_is_taken_out_of_a_file(tmp_path: Path, name: str) -> None:
    file, data = tmp_path / "bad.tar", tmp_path / "new"
    with tarfile.open(file, "w") as tar:
        for each in (name, "hub.sqlite"):
            member = tarfile.TarInfo(each)
            if each == "secret":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            member.size = 3 if member.isreg() else 0
            tar.addfile(member, io.BytesIO(b"abc"))
    done = run("restore", str(file), data=data)
    assert done.returncode != 0
    assert "is no backup of a hub" in done.stderr
    assert {one.name for one in data.iterdir()} == {"lock"}
    assert not (tmp_path / "escaped").exists()


def test_a_file_that_is_none_is_told_as_such(tmp_path: Path) -> None:
    for number, body in enumerate((b"", b"not a tar", b"\0" * 4096)):
        file = tmp_path / f"{number}.tar"
        file.write_bytes(body)
        assert "is no backup of a hub" in run("restore", str(file), data=tmp_path / "new").stderr
    assert "No such file" in run("restore", str(tmp_path / "away.tar"), data=tmp_path / "new").stderr


def test_postgresql_is_left_to_its_own_tools(tmp_path: Path) -> None:
    for words in (("backup", str(tmp_path / "x")), ("restore", str(tmp_path / "x"))):
        done = run(*words, data=tmp_path / "hub", WIO_DATABASE_URL="postgresql://wio@127.0.0.1:9/wio")
        assert done.returncode != 0
        assert "pg_dump" in done.stderr


def test_verify_finds_a_line_of_the_audit_trail_that_was_changed_or_is_missing(data: Path) -> None:
    run("user", "create", "bob@lab.example", "bob", "--password-stdin", data=data, stdin=f"{_PASSWORD}\n")
    good = run("verify", "--json", data=data)
    assert (good.returncode, [one["ok"] for one in json.loads(good.stdout)]) == (0, [True, True])
    kept = (data / "hub.sqlite").read_bytes()
    for change in ("UPDATE audit SET target = 'eve' WHERE id = 1", "DELETE FROM audit WHERE id = 1"):
        _sql(data, change)
        found = run("verify", data=data)
        assert found.returncode == 1
        assert "BAD audit trail" in found.stdout
        (data / "hub.sqlite").write_bytes(kept)
        for side in ("-wal", "-shm"):
            (data / f"hub.sqlite{side}").unlink(missing_ok=True)
    assert run("verify", data=data).returncode == 0


def test_verify_and_backup_see_that_a_database_is_damaged(data: Path, tmp_path: Path) -> None:
    _sql(data, "PRAGMA wal_checkpoint(TRUNCATE)")
    with (data / "hub.sqlite").open("r+b") as file:
        for page in range(3, 20):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    found = run("verify", data=data)
    assert found.returncode == 1
    assert "BAD database" in found.stdout
    done = run("backup", str(tmp_path / "hub.tar"), data=data)
    assert done.returncode != 0
    assert not (tmp_path / "hub.tar").exists()


def test_restored_is_refused_while_a_hub_runs(data: Path) -> None:
    with serving(data):
        done = run("restored", data=data)
        assert done.returncode != 0
        assert "Another wio-hub is using" in done.stderr
    assert "no nodes" in run("restored", data=data).stdout


def test_who_is_disabled_is_out_at_once_and_back_with_a_new_token_only(data: Path) -> None:
    login = {"email": "ann@lab.example", "password": _PASSWORD}
    with serving(data) as hub, httpx.Client(base_url=f"{hub.url}/api/v1", trust_env=False, timeout=10) as http:
        bearer = {"Authorization": f"Bearer {http.post('/sessions', json=login).json()['token']}"}
        assert http.get("/me", headers=bearer).status_code == 200
        assert run("user", "disable", "ann", data=data).returncode == 0
        assert http.post("/sessions", json=login).status_code == 401
        until("the token is refused", lambda: http.get("/me", headers=bearer).status_code == 401, seconds=5)
        assert run("user", "enable", "ann", data=data).returncode == 0
        assert http.post("/sessions", json=login).status_code == 201
        assert http.get("/me", headers=bearer).status_code == 401
    actions = [action for (action,) in _sql(data, "SELECT action FROM audit WHERE actor_id = 0 ORDER BY id")]
    assert actions == ["account.disable", "account.enable"]
    unknown = run("user", "disable", "nobody", data=data)
    assert "There is nobody called" in unknown.stderr
