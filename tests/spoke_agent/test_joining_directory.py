"""What the owner of directories may ask for, and what is refused before anything is made."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from protocol.errors import BadName, BadSetting
from spoke_agent.joining_directory import WantedDirectory, bucket_for, exports_of, mode, owner, place, serving_of
from spoke_agent.storage.posix import gateway
from spoke_agent.storage.posix.exports import Export
from spoke_agent.storage.posix.serving import Owner, Serving


@pytest.mark.parametrize(
    ("directory", "bucket"),
    [
        ("/data/lab", "lab"),
        ("/data/My Lab (2026)", "my-lab-2026"),
        ("/data/Ümläut", "ml-ut"),
        ("/data/a..b", "a.b"),
        ("/data/x", "x-dir"),
        ("/", "data-dir"),
        ("/data/日本", "data-dir"),
        ("/data/" + "long" * 40, ("long" * 40)[:63]),
    ],
)
def test_a_bucket_is_named_after_its_directory(directory: str, bucket: str) -> None:
    assert bucket_for(directory) == bucket


def wanted(*directories: Path, buckets: tuple[str, ...] = (), **more: object) -> WantedDirectory:
    return WantedDirectory("a join string", tuple(map(str, directories)), buckets, **more)  # type: ignore[arg-type]


def test_directories_are_added_and_never_renamed_nor_taken_for_each_other(tmp_path: Path) -> None:
    one, two, same = tmp_path / "one", tmp_path / "two", tmp_path / "deep" / "one"
    for path in (one, two, same):
        path.mkdir(parents=True)
    state = tmp_path / "state"
    first = exports_of(wanted(one), (), state)
    assert first == (Export("one", str(one)),)
    assert exports_of(wanted(one), first, state) == first
    assert exports_of(wanted(two, buckets=("second",)), first, state) == (*first, Export("second", str(two)))
    with pytest.raises(BadSetting, match="is bucket one already"):
        exports_of(wanted(one, buckets=("other",)), first, state)
    with pytest.raises(BadSetting, match="Bucket one is") as refused:
        exports_of(wanted(same), first, state)
    assert "--bucket NAME" in refused.value.todo
    with pytest.raises(BadName):
        exports_of(wanted(two, buckets=("Not_A_Bucket",)), first, state)
    with pytest.raises(BadSetting, match="more --bucket"):
        exports_of(wanted(two, buckets=("aaa", "bbb")), (), state)


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(outer / "inner", target_is_directory=True)
    state = tmp_path / "state"
    for path in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(BadSetting, match="is no directory"):
            exports_of(wanted(path), (), state)
    for inner in (outer / "inner", tmp_path / "link"):
        with pytest.raises(BadSetting, match="lies in"):
            exports_of(wanted(outer, inner), (), state)
    for path, own in ((outer, outer / "inner" / "state"), (outer / "inner", outer)):
        with pytest.raises(BadSetting, match="lie in one another"):
            exports_of(wanted(path), (), own)


def test_a_port_is_chosen_once_and_kept_and_one_that_is_taken_is_refused() -> None:
    made = serving_of(wanted(), None)
    assert made.host == "127.0.0.1"
    assert serving_of(wanted(owner=Owner(1, 2), file_mode=0o600), made) == Serving(
        "127.0.0.1", made.port, owner=Owner(1, 2), file_mode=0o600
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BadSetting, match=f"listens on 127.0.0.1:{port} already"):
            serving_of(wanted(listen=("127.0.0.1", port)), made)
    with pytest.raises(BadSetting, match=r"no address of this machine|can listen on 192\.0\.2\.1"):
        serving_of(wanted(listen=("192.0.2.1", 0)), None)
    with pytest.raises(BadSetting, match="belong together"):
        serving_of(wanted(certificate="cert.pem"), None)


def test_words_of_the_command_line_are_read_or_refused() -> None:
    assert (place(""), owner(""), mode("")) == (None, None, None)
    assert place("[::1]:9000") == ("::1", 9000)
    assert owner("1000:100") == Owner(1000, 100)
    assert (mode("0640"), mode("750")) == (0o640, 0o750)
    for read, words in ((place, ("9000", "host", "h:p", "u@h:1", "h:1/x")), (owner, ("alice", "1", "1:", "-1:1", "1:1:1"))):
        for text in words:
            with pytest.raises(BadSetting):
                read(text)
    for text in ("rwx", "8", "10000", "4755", "-644"):
        with pytest.raises(BadSetting):
            mode(text)


def test_a_program_that_is_not_the_gateway_or_too_old_a_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="is not installed") as refused:
        gateway.find({"PATH": str(tmp_path)})
    assert "WIO_VERSITYGW" in refused.value.todo
    with pytest.raises(BadSetting, match="is no program"):
        gateway.find({"WIO_VERSITYGW": str(tmp_path / "none")})
    program = tmp_path / "versitygw"
    for said, why in (
        ("Version  : v1.7.0", "1.7; 1.8 or newer"),
        ("Version  : git", "unknown version"),
        ("hello", "is not versitygw"),
    ):
        program.write_text(f"#!{sys.executable}\nprint({said!r})\n")
        program.chmod(0o755)
        assert gateway.find({"PATH": str(tmp_path)}) == str(program)
        with pytest.raises(BadSetting, match=why):
            gateway.check_version(str(program))
    program.write_text(f"#!{sys.executable}\nprint('Version  : v1.8.1')\n")
    assert gateway.check_version(str(program)) == "1.8"
