"""The state directory: for its owner alone, whole or not at all, one process at a time."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import BadEndpoint, BadSetting, DiskFull, NotFound
from spoke_agent.access.records import Records
from spoke_agent.access.state import Secrets, StateDirectory
from spoke_agent.control import NoneRuns, ask_running, listening
from spoke_agent.owner import Ask, Cut, What
from spoke_agent.settings import check_endpoint, read


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "state")
    made.prepare()
    return made


def test_the_directory_and_its_files_are_for_their_owner_alone_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state = StateDirectory(tmp_path / "a" / "state")
        state.prepare()
        state.keep_secrets(Secrets(bytes(32), bytes(32), "secret"))
        state.set_paused(paused=True)
        state.claim("index.sqlite")
        state.lock()
    finally:
        os.umask(before)
        state.unlock()
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in state.path.iterdir()} == {0o600}


def test_another_process_cannot_have_the_directory_at_the_same_time(state: StateDirectory) -> None:
    state.lock()
    code = (
        "import sys; from pathlib import Path; from spoke_agent.access.state import StateDirectory\n"
        "from protocol.errors import AlreadyJoined\n"
        "try: StateDirectory(Path(sys.argv[1])).lock()\n"
        "except AlreadyJoined: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, state.path], check=False).returncode == 7
    state.unlock()
    assert subprocess.run([sys.executable, "-c", code, state.path], check=False).returncode == 0


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    state.write("node.json", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match="could not be written"):
        state.write("node.json", b"new")
    assert (state.path / "node.json").read_bytes() == b"old"
    assert [file.name for file in state.path.iterdir()] == ["node.json"]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"node_seed": "planted-canary"}', b"\xff", b"planted-canary"])
def test_a_damaged_key_file_is_told_without_what_is_in_it(state: StateDirectory, body: bytes) -> None:
    (state.path / "node.key").write_bytes(body)
    with pytest.raises(BadSetting, match="is damaged") as raised:
        state.secrets()
    assert "canary" not in f"{raised.value!r} {raised.value.todo} {raised.value.__cause__!r}"


def test_secrets_survive_and_show_nowhere(state: StateDirectory) -> None:
    secrets = Secrets(os.urandom(32), os.urandom(32), "planted-canary")
    state.keep_secrets(secrets)
    assert state.secrets() == secrets
    assert "canary" not in repr(secrets)


def test_where_nobody_joined_that_is_said(state: StateDirectory) -> None:
    with pytest.raises(NotFound, match="No node has joined"):
        state.settings()
    assert not state.joined


def test_forgetting_removes_what_an_agent_makes_and_nothing_else(state: StateDirectory) -> None:
    state.make_ceiling()
    state.set_paused(paused=True)
    (state.path / "mine.txt").write_text("not wio's")
    assert set(state.forget()) == {"ceiling.toml", "paused"}
    assert [file.name for file in state.path.iterdir()] == ["mine.txt"]


def test_the_owners_ceiling_file_is_never_written_over(state: StateDirectory) -> None:
    (state.path / "ceiling.toml").write_text("read_only = true\n")
    state.make_ceiling()
    assert state.ceiling_text() == "read_only = true\n"


async def test_a_record_of_grants_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "grants.sqlite").write_bytes(b"not a database, but long enough to look like a file of one" * 20)
    records = Records(tmp_path / "grants.sqlite")
    with pytest.raises(BadSetting, match="is damaged"):
        await records.open(0)
    await records.close()


# ------------------------------------------------------------------------------------------------ the control socket


async def test_the_owner_is_answered_also_below_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 90) / ("y" * 90)
    folder.mkdir(parents=True)

    async def answer(ask: Ask) -> Cut:
        if ask.root == "bad":
            raise NotFound("There is no such root.", todo="Look.")
        return Cut(ask.what is What.PAUSE, 3, ())

    with pytest.raises(NoneRuns):
        await ask_running(folder, Ask(What.PAUSE))
    async with listening(folder, answer):
        assert stat.S_IMODE((folder / "control.sock").stat().st_mode) == 0o600
        assert b'"changed":3' in await ask_running(folder, Ask(What.PAUSE))
        with pytest.raises(NotFound, match="no such root"):
            await ask_running(folder, Ask(What.SCAN, "bad"))
    with pytest.raises(NoneRuns):
        await ask_running(folder, Ask(What.PAUSE))


async def test_a_socket_left_behind_by_a_kill_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("control.sock")
    with pytest.raises(NoneRuns):
        await ask_running(tmp_path, Ask(What.STATUS))


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    "url", ["http://10.0.0.5:9000", "https://s3.example.org", "http://127.0.0.1:9000/", "http://[::1]:9000"]
)
def test_an_ordinary_address_is_taken(url: str) -> None:
    assert check_endpoint(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "file:///etc/passwd", "//host", "", "http://a b", "http://h/?x", "http://h/#x", "http://h\n",
        "http://169.254.169.254/", "http://[fe80::1]:9000", "http://[fd00:ec2::254]", "http://x@h", "http://h:99999",
    ],
)  # fmt: skip
def test_anything_else_is_no_storage_server(url: str) -> None:
    with pytest.raises(BadEndpoint):
        check_endpoint(url)


def test_settings_come_from_the_environment_and_the_command_line_wins(tmp_path: Path) -> None:
    environment = {"WIO_AGENT_STATE": "/from/environment", "WIO_AGENT_SCAN_EVERY_S": "60", "WIO_AGENT_LISTEN": "[::1]:7000"}
    assert read(environment).state == Path("/from/environment")
    settings = read(environment, tmp_path)
    assert (settings.state, settings.scan_every_s, settings.listen_host, settings.listen_port) == (tmp_path, 60, "::1", 7000)
    for name, wrong in (("WIO_AGENT_SCAN_EVERY_S", "soon"), ("WIO_AGENT_SCAN_EVERY_S", "nan"), ("WIO_AGENT_LISTEN", "nowhere")):
        with pytest.raises(BadSetting, match=name):
            read({name: wrong})
