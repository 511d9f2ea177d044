"""What `wio mc` makes of a command line: the table is the definition."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from protocol.errors import BadInput, BadName, BadSetting, Internal, UnknownPath
from protocol.grants import Permission
from wio import mc as wio_mc
from wio.credentials import Key, Opening, Place
from wio.mc import COMMANDS, harmless, plan, read, renamed
from wio.mc_run import Holdback, find_mc


def opening(path: str, workspace: str, *, node: str, bucket: str, prefix: str, inside: str, hidden: str = "s/e+c@r") -> Opening:
    endpoint = f"http://{node}.example:9000"
    key = Key(node, 1, f"AK{node}", hidden, "TOKEN", 0, 3600, endpoint, "us-east-1")
    place = Place(path, workspace, node, endpoint, "us-east-1", bucket, prefix, prefix + inside, Permission.MANAGE)
    return Opening(place, key)


WHERE = {
    "scans": ("alice/scans", "lab3", "lab", "alice/scans/"),
    "alice/scans": ("alice/scans", "lab3", "lab", "alice/scans/"),
    "bob/cells": ("bob/cells", "lab3", "lab", "bob/cells/"),
    "own": ("alice/own", "n.as", "homes--alice--own", ""),
}


def where(path: str) -> Opening:
    """Stand in for the hub: the longest known workspace that begins the path."""
    head = max((head for head in WHERE if path == head or path.startswith(f"{head}/")), key=len)
    workspace, node, bucket, prefix = WHERE[head]
    return opening(path, workspace, node=node, bucket=bucket, prefix=prefix, inside=path[len(head) :].lstrip("/"))


def runs(*arguments: str) -> list[str]:
    line = read(arguments)
    return [" ".join(run.arguments) for run in plan(line, {path: where(path) for path in line.paths})]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("ls scans", ["ls wio_lab3/lab/alice/scans/"]),
        ("ls scans/", ["ls wio_lab3/lab/alice/scans/"]),
        ("ls scans/sub-014/", ["ls wio_lab3/lab/alice/scans/sub-014/"]),
        ("ls alice/scans/a.txt", ["ls wio_lab3/lab/alice/scans/a.txt"]),
        ("ls lab3:scans/a.txt", ["ls wio_lab3/lab/alice/scans/a.txt"]),
        ("ls own", ["ls wio_n_as/homes--alice--own/"]),
        ("ls own/a.txt", ["ls wio_n_as/homes--alice--own/a.txt"]),
        ("ls -r --json scans", ["ls -r --json wio_lab3/lab/alice/scans/"]),
        ("ls scans --recursive", ["ls --recursive wio_lab3/lab/alice/scans/"]),
        ("--json ls scans", ["ls --json wio_lab3/lab/alice/scans/"]),
        ("ls --rewind 7d scans", ["ls --rewind 7d wio_lab3/lab/alice/scans/"]),
        ("ls --rewind=7d scans", ["ls --rewind=7d wio_lab3/lab/alice/scans/"]),
        ("ls scans own", ["ls wio_lab3/lab/alice/scans/", "ls wio_n_as/homes--alice--own/"]),
        (
            "cat scans/a own/b scans/c",
            ["cat wio_lab3/lab/alice/scans/a", "cat wio_n_as/homes--alice--own/b", "cat wio_lab3/lab/alice/scans/c"],
        ),
        ("cat scans/a bob/cells/b", ["cat wio_lab3/lab/alice/scans/a wio_lab3/lab/bob/cells/b"]),
        ("head -n 3 scans/a", ["head -n 3 wio_lab3/lab/alice/scans/a"]),
        ("cp a.txt scans/", ["cp a.txt wio_lab3/lab/alice/scans/"]),
        ("cp scans/a.txt b.txt", ["cp wio_lab3/lab/alice/scans/a.txt b.txt"]),
        ("cp scans/a.txt .", ["cp wio_lab3/lab/alice/scans/a.txt ."]),
        ("cp ./data/x ../y /abs/z scans/", ["cp ./data/x ../y /abs/z wio_lab3/lab/alice/scans/"]),
        ("cp -- -odd.txt scans/", ["cp ./-odd.txt wio_lab3/lab/alice/scans/"]),
        ("cp scans/a bob/cells/b own/", ["cp wio_lab3/lab/alice/scans/a wio_lab3/lab/bob/cells/b wio_n_as/homes--alice--own/"]),
        ("cp --attr k=v scans/a own/", ["cp --attr k=v wio_lab3/lab/alice/scans/a wio_n_as/homes--alice--own/"]),
        ("cp -r scans/sub/ ./out/", ["cp -r wio_lab3/lab/alice/scans/sub/ ./out/"]),
        ("cp -r scans/ ./out/", ["cp -r wio_lab3/lab/alice/scans/ ./out/"]),
        ("cp -r alice/scans ./out/", ["cp -r wio_lab3/lab/alice/scans/ ./out/"]),
        ("cp -r ./out scans/new", ["cp -r ./out wio_lab3/lab/alice/scans/new"]),
        ("mirror --exclude *.tmp ./out scans/new", ["mirror --exclude *.tmp ./out wio_lab3/lab/alice/scans/new"]),
        ("rm -r --force scans", ["rm -r --force wio_lab3/lab/alice/scans/"]),
        ("rm scans/a own/b", ["rm wio_lab3/lab/alice/scans/a", "rm wio_n_as/homes--alice--own/b"]),
        ("diff scans/ own/", ["diff wio_lab3/lab/alice/scans/ wio_n_as/homes--alice--own/"]),
        (
            "cp scans/a own/b scans/c own/in",
            [
                "cp wio_lab3/lab/alice/scans/a wio_n_as/homes--alice--own/in/",
                "cp wio_n_as/homes--alice--own/b wio_n_as/homes--alice--own/in/",
                "cp wio_lab3/lab/alice/scans/c wio_n_as/homes--alice--own/in/",
            ],
        ),
        (
            "mv a.txt scans/a ./down",
            ["mv a.txt ./down/", "mv wio_lab3/lab/alice/scans/a ./down/"],
        ),
        ("cp scans/a scans/b own", ["cp wio_lab3/lab/alice/scans/a wio_lab3/lab/alice/scans/b own"]),
        ("find scans --name *.nii", ["find --name *.nii wio_lab3/lab/alice/scans/"]),
        ("pipe scans/x", ["pipe wio_lab3/lab/alice/scans/x"]),
        ("ls scans/it's \N{GREEK SMALL LETTER ALPHA}", ["ls wio_lab3/lab/alice/scans/it's \N{GREEK SMALL LETTER ALPHA}"]),
    ],
)
def test_a_command_line_with_workspace_paths_becomes_mcs_own(given: str, expected: list[str]) -> None:
    words = given.split(" ") if "it's" not in given else ["ls", given.removeprefix("ls ")]
    assert runs(*words) == expected


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ("", BadInput, "needs a command"),
        ("admin info scans", BadInput, "does not know"),
        ("ls", BadInput, "needs a path"),
        ("cp a.txt b.txt", BadInput, "None of the arguments"),
        ("ls scans/../bob", BadName, "another place"),
        ("ls scans//a", BadName, "another place"),
        ("rm --stdin scans", BadInput, "standard input"),
        ("ls nas:scans/a", UnknownPath, "on node lab3"),
        ("rm -r --force scans/sub", BadInput, "begins like that"),
        ("cp -r scans/sub ./out/", BadInput, "begins like that"),
        ("mv --recursive alice/scans/sub own/", BadInput, "begins like that"),
    ],
)
def test_what_mc_would_misunderstand_is_refused_with_a_reason(given: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=re.escape(says)):
        runs(*given.split())


def test_keys_are_in_the_environment_and_nowhere_else() -> None:
    line = read(["cp", "scans/a", "own/"])
    [run] = plan(line, {path: where(path) for path in line.paths})
    assert run.environment == {
        "MC_HOST_wio_lab3": "http://AKlab3:s/e+c@r:TOKEN@lab3.example:9000",
        "MC_HOST_wio_n_as": "http://AKn.as:s/e+c@r:TOKEN@n.as.example:9000",
    }
    assert "s/e+c@r" not in " ".join(run.arguments)
    assert "TOKEN" not in repr(run)


def test_a_key_that_mc_cannot_take_is_refused_rather_than_cut_in_half() -> None:
    with pytest.raises(Internal, match="colon"):
        wio_mc.host(opening("x", "alice/x", node="n", bucket="b", prefix="", inside="x", hidden="a:b"))


def test_nodes_whose_names_differ_only_in_punctuation_get_different_aliases() -> None:
    opened = {
        "a/x": opening("a/x", "me/a", node="n.1", bucket="b", prefix="", inside="x"),
        "b/": opening("b/", "me/b", node="n-1", bucket="b", prefix="", inside=""),
    }
    [run] = plan(read(["cp", "a/x", "b/"]), opened)
    assert run.arguments == ("cp", "wio_n_1/b/x", "wio_n_1_/b/")
    assert len(run.environment) == 2


@pytest.mark.parametrize(
    ("command", "said", "shown"),
    [
        ("cp scans/a ./b", b"`wio_lab3/lab/alice/scans/a` -> `b`\n", b"`alice/scans/a` -> `b`\n"),
        ("diff scans/ own/", b"< http://lab3.example:9000/lab/alice/scans/a.txt\n", b"< alice/scans/a.txt\n"),
        ("diff scans/ own/", b"> http://n.as.example:9000/homes--alice--own/b\n", b"> alice/own/b\n"),
        ("du scans/", b"21B\t3 objects\tlab/alice/scans\n", b"21B\t3 objects\talice/scans\n"),
        ("ls scans/", b"[2026-11-24] 7B lab/alice/scans/x\n", b"[2026-11-24] 7B lab/alice/scans/x\n"),
    ],
)
def test_positions_on_the_server_are_shown_as_workspace_names(command: str, said: bytes, shown: bytes) -> None:
    line = read(command.split())
    [run] = plan(line, {path: where(path) for path in line.paths})
    assert renamed(said, run.names) == shown


def test_a_prefix_is_renamed_in_json_as_go_escapes_it() -> None:
    opened = {"q/": opening("q/", "alice/q", node="n", bucket="b", prefix="r&d/", inside="")}
    [run] = plan(read(["find", "q/"]), opened)
    assert renamed(b'{"key":"wio_n/b/r\\u0026d/x"}', run.names) == b'{"key":"alice/q/x"}'


def test_what_a_files_name_smuggles_in_does_not_reach_a_terminal() -> None:
    line = b"\x1b[31mred\x07 \xc2\x9b2J \xe2\x80\xae ok \xff\t1\n"
    safe = harmless(line)
    assert safe == "\\x1b[31mred\\x07 \\x9b2J \\u202e ok \N{REPLACEMENT CHARACTER}\t1\n".encode()


def test_every_option_with_a_value_in_mcs_own_help_is_known(mc: Path) -> None:
    for command in COMMANDS:
        text = subprocess.run([mc, command, "--help"], capture_output=True, text=True, check=True).stdout
        for line in re.findall(r"^  (-[^ ].*?) value  ", text, re.MULTILINE):
            for option in line.replace(" value", "").split(", "):
                assert option.lstrip("-") in wio_mc._WITH_VALUE, f"{command} {option}"


def test_no_option_without_a_value_is_taken_for_one_with(mc: Path) -> None:
    for command in COMMANDS:
        text = subprocess.run([mc, command, "--help"], capture_output=True, text=True, check=True).stdout
        flags = text.split("FLAGS:")[1].split("ENVIRONMENT")[0].split("EXAMPLES")[0].split("UNITS")[0]
        for line in re.findall(r"^  (--?[a-z][^ ]*(?:, --?[a-zA-Z-]+)*)  ", flags, re.MULTILINE):
            for option in line.split(", "):
                assert option.lstrip("-") not in wio_mc._WITH_VALUE, f"{command} {option}"


# ------------------------------------------------------------------------------------------------------ refusals


def opened_to(permission: Permission, *words: str) -> tuple[wio_mc.Line, dict[str, Opening]]:
    line = read(words)
    opened = {}
    for path in line.paths:
        one = where(path)
        opened[path] = Opening(msgspec.structs.replace(one.place, permission=permission), one.key, kept=True)
    return line, opened


@pytest.mark.parametrize(
    ("given", "enough", "too_little"),
    [
        ("ls scans", "read write manage", "drop"),
        ("cp scans/a ./b", "read write manage", "drop"),
        ("cp ./b scans/a", "drop write manage", "read"),
        ("pipe scans/a", "drop write manage", "read"),
        ("mirror ./b scans/", "drop write manage", "read"),
        ("rm scans/a", "write manage", "read drop"),
        ("mv scans/a ./b", "write manage", "read drop"),
        ("diff scans/ own/", "read write manage", "drop"),
    ],
)
def test_what_a_command_needs_to_be_allowed(given: str, enough: str, too_little: str) -> None:
    for name in enough.split():
        assert wio_mc.lacking(*opened_to(Permission(name), *given.split())) is None, name
    for name in too_little.split():
        assert wio_mc.lacking(*opened_to(Permission(name), *given.split())) is not None, name


@pytest.mark.parametrize(
    ("given", "printed", "again"),
    [
        ("ls scans", False, True),
        ("ls scans", True, False),
        ("cat scans/a", False, True),
        ("cat scans/a scans/b", False, False),
        ("ls scans bob/cells", False, True),
        ("find scans --exec touch", False, False),
        ("find scans --exec=touch", False, False),
        ("find scans --name a", False, True),
        ("rm scans/a", False, False),
        ("cp scans/a ./b", False, False),
        ("mirror scans/ ./b", False, False),
        ("pipe scans/a", False, False),
    ],
)
def test_only_what_looks_and_has_said_nothing_yet_is_run_again(given: str, *, printed: bool, again: bool) -> None:
    line, opened = opened_to(Permission.MANAGE, *given.split())
    [run] = plan(line, opened)
    assert run.kept
    assert wio_mc.repeatable(line, run, printed=printed) is again


def test_a_refusal_and_the_errors_after_it_are_kept_back_but_not_without_end() -> None:
    said: list[bytes] = []
    held = Holdback(lambda _, line: said.append(line), wanted=True)
    sink = io.BytesIO()
    assert not held.takes(sink, b"mc: <ERROR> Object does not exist.\n")
    assert held.takes(sink, b"mc: <ERROR> Unable to list folder. Access Denied.\n")
    assert held.takes(sink, b"mc: <ERROR> Object does not exist.\n")
    assert said == []
    taken = 2
    while held.takes(sink, b"mc: <ERROR> Access Denied.\n"):
        taken += 1
        assert taken < 1000
    assert len(said) == taken
    assert held.overflowed


def test_nothing_is_kept_back_where_the_hub_gave_the_key_just_now() -> None:
    held = Holdback(lambda *_: None, wanted=False)
    assert not held.takes(io.BytesIO(), b"mc: <ERROR> Access Denied.\n")
    assert held.refusal is wio_mc.Refusal.NONE


def program(path: Path, says: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_mc_is_found_by_variable_then_path_then_the_provided_one(tmp_path: Path) -> None:
    provided = program(tmp_path / "cache/wio/bin/mc", "mc version RELEASE")
    environment = {"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert find_mc(environment) == str(provided)
    on_path = program(tmp_path / "bin/mc", "mc version RELEASE")
    assert find_mc(environment) == str(on_path)
    chosen = program(tmp_path / "elsewhere/my-mc", "anything")
    assert find_mc({**environment, "WIO_MC": str(chosen)}) == str(chosen)


def test_midnight_commander_is_not_taken_for_mc(tmp_path: Path) -> None:
    program(tmp_path / "bin/mc", "GNU Midnight Commander 4.8.29, version")
    with pytest.raises(BadSetting, match="not installed"):
        find_mc({"PATH": str(tmp_path / "bin"), "XDG_CACHE_HOME": str(tmp_path / "none")})


def test_a_variable_that_names_no_program_is_an_error_not_a_guess(tmp_path: Path) -> None:
    with pytest.raises(BadSetting, match="WIO_MC"):
        find_mc({"WIO_MC": str(tmp_path / "missing"), "PATH": "/usr/bin"})
