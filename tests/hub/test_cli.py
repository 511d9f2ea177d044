"""``wio-hub`` as a person runs it: a program, its output and its exit code."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

import httpx
import pytest
from typer.testing import CliRunner

from hub.cli import app, main
from protocol.api import Health, HubInfo, Person

_PROGRAM: Final = Path(sys.executable).parent / "wio-hub"
_DOCS: Final = Path(__file__).parents[2] / "docs" / "settings.md"
_PASSWORD: Final = "correct horse battery"


def _environment(data: Path, given: dict[str, str]) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("WIO_", "WEB_"))}
    return plain | {"WIO_DATA": str(data), "COLUMNS": "120"} | given


@dataclass(frozen=True)
class Done:
    """What a command said and how it ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: str, data: Path, stdin: str = "", **given: str) -> Done:
    """Run a command to its end: the whole program, in this process, because starting one takes a second."""
    out, err, root = io.StringIO(), io.StringIO(), logging.getLogger()
    kept = (root.handlers[:], root.level)
    code: object = 0
    with (
        patch.dict(os.environ, _environment(data, given), clear=True),
        patch.object(sys, "argv", ["wio-hub", *words]),
        patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        finally:
            root.handlers[:], root.level = kept
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


class Serving:
    """A hub that runs as a program of its own."""

    def __init__(self, process: subprocess.Popen[str], said: dict[str, str]) -> None:
        self.process = process
        self.url = said["listening"]
        self.public_name = said["public_name"]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}/api/v1{path}", trust_env=False, timeout=10)


@contextmanager
def serving(data: Path, *, ends: int = 0, **given: str) -> Iterator[Serving]:
    """Start ``wio-hub serve`` on a free port and wait for its first line; at the end stop it and see that it ends well."""
    log = data.with_suffix(".log").open("w+")
    environment = _environment(data, {"WIO_PORT": "0"} | given)
    with (
        log,
        subprocess.Popen(
            [_PROGRAM, "serve", "--json"], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            log.seek(0)
            assert line, log.read()
            yield Serving(process, json.loads(line))
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == ends
        finally:
            watchdog.cancel()
            process.kill()


def test_a_hub_runs_with_no_configuration_and_says_where(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    with serving(data) as hub:
        assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d+", hub.url)
        assert hub.public_name == hub.url
        assert Health(**hub.get("/health").json()) == Health(True, {"database": "ok", "index": "ok", "disk": "ok"})
        info = HubInfo(**hub.get("/hub").json())
        assert info.registration == "open"
    assert (data / "secret").stat().st_mode & 0o777 == 0o600
    assert "user create" in data.with_suffix(".log").read_text()
    with serving(data, WIO_PUBLIC_NAME="https://hub.example.org") as hub:
        assert hub.public_name == "https://hub.example.org"
        assert hub.get("/hub").json()["key"] == info.key


def test_a_second_hub_on_the_same_data_is_refused_and_the_first_does_not_notice(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    with serving(data) as hub:
        second = run("serve", "--port", "0", data=data)
        assert second.returncode == 1
        assert "Another wio-hub is using" in second.stderr
        assert "Traceback" not in second.stderr
        assert hub.get("/health").json()["ok"] is True
        assert run("reindex", data=data).returncode == 1


def test_a_hub_that_is_killed_starts_again(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    with serving(data, ends=-signal.SIGKILL) as hub:
        hub.process.kill()
    with serving(data) as hub:
        assert hub.get("/health").json()["ok"] is True


@pytest.mark.parametrize(
    ("given", "code", "told"),
    [
        ({"WIO_PORT": "http"}, 2, "WIO_PORT"),
        ({"WIO_SECRET": "canary"}, 2, "WIO_SECRET"),
        ({"WEB_CONCURRENCY": "4"}, 2, "WEB_CONCURRENCY"),
        ({"WIO_ELASTICSEARCH_NODE_1": "http://127.0.0.1:9200"}, 2, "WIO_ELASTICSEARCH_NODE_1"),
        ({"WIO_HOST": "203.0.113.7"}, 2, "203.0.113.7"),
        ({"WIO_HOST": "no.such.host.invalid"}, 2, "no.such.host.invalid"),
        ({"WIO_DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/wio"}, 5, "database"),
        ({"WIO_DATABASE_URL": "sqlite:////nowhere/at/all/hub.sqlite"}, 5, "database"),
        ({"WIO_DATA": "/proc/nowhere"}, 2, "/proc/nowhere"),
    ],
)
def test_a_hub_that_cannot_start_says_why_in_a_sentence(tmp_path: Path, given: dict[str, str], code: int, told: str) -> None:
    done = run("serve", "--port", given.get("WIO_PORT", "0"), data=tmp_path / "hub", **given)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "canary" not in done.stderr
    assert done.stdout == ""


def test_a_port_in_use_is_said_as_such(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port, data=tmp_path / "hub")
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr


def test_another_secret_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    assert run("init", data=data, WIO_SECRET="a" * 32).returncode == 0
    done = run("serve", "--port", "0", data=data, WIO_SECRET="b" * 32)
    assert done.returncode == 2
    assert "WIO_SECRET is not the secret" in done.stderr


def test_a_full_disk_is_said_as_such(tmp_path: Path) -> None:
    """With a real one: a file system of a few blocks, which only this one process sees."""
    small = tmp_path / "small"
    small.mkdir()
    alone = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    script = 'mount -t tmpfs -o "size=$1" tmpfs "$2" || exit 99; shift 2; exec "$@"'
    for size in ("4k", "64k", "300k"):
        words = [*alone, script, "sh", size, small, _PROGRAM, "init"]
        done = subprocess.run(
            words, env=_environment(small / "hub", {}), capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode == 99 or "unshare" in done.stderr:
            pytest.skip("a file system of one's own is not allowed here")
        assert done.returncode == 1, done.stderr
        assert "no space left" in done.stderr
        assert "Traceback" not in done.stderr


def test_init_is_harmless_to_repeat(tmp_path: Path) -> None:
    first = run("init", "--json", data=tmp_path / "hub")
    again = run("init", "--json", data=tmp_path / "hub")
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == json.loads(again.stdout)


def test_a_hub_keeps_everything_in_postgresql_where_it_is_told_to(
    tmp_path: Path, postgres: str, new_postgres: Callable[[str], str]
) -> None:
    data = tmp_path / "hub"
    url = new_postgres("cli").replace("postgresql+asyncpg", "postgres")
    made = run("init", data=data, WIO_DATABASE_URL=url)
    assert made.returncode == 0, made.stderr
    assert not (data / "hub.sqlite").exists()
    assert run("doctor", data=data, WIO_DATABASE_URL=url).returncode == 0
    with serving(data, WIO_DATABASE_URL=url) as hub:
        assert hub.get("/health").json()["ok"] is True
    missing = run("init", data=data, WIO_DATABASE_URL=f"{postgres.replace('+asyncpg', '')}/missing")
    assert missing.returncode == 5, missing.stderr
    assert "missing" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_migrate_says_from_where_to_where(tmp_path: Path) -> None:
    first = json.loads(run("migrate", "--json", data=tmp_path / "hub").stdout)
    again = json.loads(run("migrate", "--json", data=tmp_path / "hub").stdout)
    assert first["before"] is None
    assert again["before"] == again["after"] == first["after"]


def test_settings_are_shown_with_where_they_come_from_and_without_secrets(tmp_path: Path) -> None:
    done = run("settings", "--json", data=tmp_path / "hub", WIO_SECRET="canary" * 6, WIO_SECERT="x")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["WIO_SECRET"]["source"] == "environment"
    assert rows["WIO_HOST"] == {
        "name": "WIO_HOST",
        "value": "127.0.0.1",
        "source": "default",
        "about": rows["WIO_HOST"]["about"],
    }
    assert "canary" not in done.stdout + done.stderr
    assert "WIO_SECERT" in done.stderr
    assert not (tmp_path / "hub").exists()
    assert "WIO_PROXY_HEADERS" in run("settings", data=tmp_path / "hub").stdout


def test_an_account_can_be_made_while_the_hub_runs_also_where_registration_is_closed(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    words = ("user", "create", "Root@Lab.example", "boss", "--admin", "--password-stdin", "--json")
    with serving(data, WIO_REGISTRATION="closed") as hub:
        done = run(*words, data=data, stdin=f"{_PASSWORD}\n")
        assert done.returncode == 0, done.stderr
        person = Person(**json.loads(done.stdout))
        assert (person.username, person.email, person.admin) == ("boss", "root@lab.example", True)
        login = {"email": "root@lab.example", "password": _PASSWORD}
        signed_in = httpx.post(f"{hub.url}/api/v1/sessions", json=login, trust_env=False, timeout=30)
        assert signed_in.status_code == 201
        assert signed_in.json()["person"]["admin"] is True
    assert _PASSWORD not in data.with_suffix(".log").read_text()
    again = run(*words, data=data, stdin=f"{_PASSWORD}\n")
    assert again.returncode == 1
    assert "boss" in again.stderr


@pytest.mark.parametrize(
    ("email", "username", "password", "told"),
    [
        ("a@b.example", "../x", _PASSWORD, "user name"),
        ("a@b.example", "x", "short", "password"),
        ("nobody", "x", _PASSWORD, "mail address"),
        ("a@b.example", "x", "", "password"),
    ],
)
def test_an_account_that_cannot_be_is_refused_and_nothing_is_made(
    tmp_path: Path, email: str, username: str, password: str, told: str
) -> None:
    done = run("user", "create", email, username, "--password-stdin", data=tmp_path / "hub", stdin=f"{password}\n")
    assert done.returncode == 2
    assert told in done.stderr
    assert run("user", "create", "a@b.example", "x", "--password-stdin", data=tmp_path / "hub", stdin=_PASSWORD).returncode == 0


def test_a_password_is_never_asked_for_where_nobody_can_answer(tmp_path: Path) -> None:
    done = run("user", "create", "a@b.example", "x", data=tmp_path / "hub")
    assert done.returncode == 2
    assert "--password-stdin" in done.stderr


def test_doctor_finds_what_is_wrong_and_what_is_not(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    assert run("doctor", data=data).returncode == 1
    assert not data.exists()
    run("init", data=data)
    good = run("doctor", "--json", data=data)
    assert good.returncode == 0, good.stdout + good.stderr
    assert all(finding["ok"] for finding in json.loads(good.stdout))
    (data / "secret").write_text("f" * 64)
    bad = run("doctor", data=data)
    assert bad.returncode == 1
    assert "BAD hub key: WIO_SECRET is not the secret" in bad.stdout


def test_doctor_asks_a_hub_that_runs(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    with serving(data) as hub:
        port = hub.url.rpartition(":")[2]
        asked = run("doctor", "--running", "--json", data=data, WIO_PORT=port)
        assert asked.returncode == 0, asked.stdout
        assert [finding["what"] for finding in json.loads(asked.stdout)] == ["database", "index", "disk"]
        assert run("doctor", data=data, WIO_PORT=port).returncode == 0
    assert run("doctor", "--running", data=data, WIO_PORT=port).returncode == 1


def test_the_index_is_made_again_after_it_was_deleted(tmp_path: Path) -> None:
    data = tmp_path / "hub"
    run("init", data=data)
    shutil.rmtree(data / "index", ignore_errors=True)
    done = run("reindex", "--json", data=data)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"documents": 0, "position": 0}


@pytest.mark.parametrize("form", ["plain", "json"])
def test_the_log_has_one_form_and_no_secrets(tmp_path: Path, form: str) -> None:
    data = tmp_path / "hub"
    with serving(data, WIO_LOG=form, WIO_SECRET="canary" * 6) as hub:
        hub.get("/nothing?token=canary")
    log = data.with_suffix(".log").read_text()
    assert "canary" not in log
    lines = [line for line in log.splitlines() if "account yet" not in line]
    if form == "json":
        assert all({"at", "level", "logger", "message"} <= set(json.loads(line)) for line in lines)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["serve", "--nonsense"], ["user"], ["user", "create", "a@b"]])
def test_wrong_use_ends_with_two_and_a_hint(tmp_path: Path, words: list[str]) -> None:
    done = run(*words, data=tmp_path / "hub")
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_every_command_explains_itself() -> None:
    runner = CliRunner()
    for words in (["serve"], ["init"], ["migrate"], ["settings"], ["user", "create"], ["reindex"], ["doctor"]):
        told = runner.invoke(app, [*words, "--help"])
        assert told.exit_code == 0
        assert "--json" in told.output
