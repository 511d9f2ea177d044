"""The command, against a hub that listens and answers what was recorded."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from typer.testing import Result

from protocol.api import (
    AuditEntry,
    Credentials,
    FacetCount,
    FileEntry,
    Hit,
    Invitation,
    Link,
    LinkRevoked,
    Listing,
    NewCredentials,
    NewLink,
    Node,
    NodeState,
    NodeView,
    Root,
    RootKind,
    ScanStatus,
    SearchPage,
    Share,
    ShareChange,
    Workspace,
)
from protocol.errors import BadQuery, NodeOffline, NoGrant, NotSignedIn, OverCeiling, UnknownWorkspace, WrongPassword
from protocol.grants import Permission, ProbeProof, Receipt, ReceiptState, Subject, SubjectKind
from protocol.identity import fingerprint, new_key, public_bytes, to_text
from protocol.messages import Finding, IndexLevel, ProbeLine, ScanState
from protocol.names import Layout
from protocol.sealing import client_key
from tests.wio.standins import ALICE, SIGNED_IN, RecordedHub, Request, SealingNode
from wio.cli import app, roots

Wio = Callable[..., Result]
AT = 1_772_448_127_318_000
DOCS = Path(__file__).parents[3] / "docs" / "commands.md"
SCANS = Workspace(
    1, "alice", "scans", "lab3", "homes", "lab", "alice/scans/", "MR scans", False, Permission.MANAGE, 3, 2048, AT
)  # fmt: skip
VIEW = NodeView("lab3", NodeState.ONLINE, 2.0, 0, scanning=False)
LAB3 = Node(
    3, "lab3", "alice", NodeState.ONLINE, to_text(b"k" * 32), "minio", "MinIO 2026", "0.1", ("http://lab3:9000",), "us-east-1",
    "no", (ProbeLine("assume-role", Finding.YES, "works"),), ("no bucket but lab",), ("names are visible",), 0, AT, AT,
)  # fmt: skip
HOMES = Root(
    4, "lab3", "homes", "alice", RootKind.PRIVATE, "lab", "", Layout.BUCKET, IndexLevel.NAMES, 3, 2048, "0" * 16,
    ("a warning",), AT,
)  # fmt: skip


def commands(group: Any = None, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk over every command there is, hidden short forms left out."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))
        else:
            yield (*before, name), command


ALL = dict(commands())


# ------------------------------------------------------------------------------------------------------ every command


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_has_help_that_says_what_it_does(wio: Wio, words: tuple[str, ...]) -> None:
    said = wio(*words, "--help")
    assert said.exit_code == 0
    assert ALL[words].help.splitlines()[0][:40] in re.sub(r"\s+", " ", said.stdout)


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_offers_json(words: tuple[str, ...]) -> None:
    if words == ("mc",):  # its --json is mc's own, and passed on to it
        return
    assert "--json" in {option for parameter in ALL[words].params for option in parameter.opts}


def test_the_table_in_the_documentation_has_exactly_the_commands_there_are() -> None:
    rows = re.findall(r"^\| `(wio [^`]+)` \| `(wio [^`]+)` \|", DOCS.read_text(), re.MULTILINE)
    known = {"wio " + " ".join(words) for words in ALL}
    documented = [" ".join(word for word in shlex.split(usage) if word.islower() and word.isalpha()) for usage, _ in rows]
    assert sorted(documented) == sorted(known)
    for _, example in rows:
        assert any(example.startswith(name) for name in known)


@pytest.mark.parametrize(
    "words", [["nonsense"], ["share", "scans"], ["find"], ["ls", "--limit", "none"], ["create", "x", "--nope"]]
)
def test_wrong_use_exits_with_2_and_answers_nothing(wio: Wio, words: list[str]) -> None:
    said = wio(*words)
    assert said.exit_code == 2
    assert said.stdout == ""
    assert "Traceback" not in said.stderr


# ------------------------------------------------------------------------------------------------------ accounts


def test_register_signs_in_and_the_password_comes_from_standard_input(wio: Wio, hub: RecordedHub, tmp_path: Path) -> None:
    hub.on("POST", "/accounts", SIGNED_IN)
    fresh = str(tmp_path / "fresh")
    said = wio(
        "register",
        "alice@lab.example",
        "alice",
        "--hub",
        hub.url,
        "--password-stdin",
        stdin="correct horse\n",
        WIO_CONFIG=fresh,
    )
    assert said.exit_code == 0, said.output
    assert json.loads(hub.asked[0].body) == {"email": "alice@lab.example", "username": "alice", "password": "correct horse"}
    assert said.stdout.startswith(f"alice (alice@lab.example) at {hub.url}")
    hub.on("GET", "/me", ALICE)
    assert wio("whoami", WIO_CONFIG=fresh).exit_code == 0
    assert hub.asked[-1].token == "token-of-alice"


def test_login_takes_the_password_from_the_environment(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/sessions", SIGNED_IN)
    said = wio("login", "--json", WIO_PASSWORD="secret words")
    assert said.exit_code == 0
    assert json.loads(hub.asked[0].body) == {"email": "alice@lab.example", "password": "secret words"}
    answer = json.loads(said.stdout)
    assert answer["person"]["username"] == "alice"
    assert "token" not in said.stdout


def test_without_a_terminal_or_password_login_says_how_to_give_one(wio: Wio, hub: RecordedHub) -> None:
    said = wio("login")
    assert said.exit_code == 2
    assert "--password-stdin" in said.stderr
    assert hub.asked == []


def test_a_password_is_not_sent_to_a_hub_without_tls_over_a_network(wio: Wio) -> None:
    said = wio("login", "a@b.example", "--hub", "http://hub.example.org", WIO_PASSWORD="x")
    assert said.exit_code == 2
    assert "TLS" in said.stderr


def test_a_wrong_password_exits_with_4(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/sessions", WrongPassword("Mail address and password do not belong together.", todo="Try again."))
    said = wio("login", WIO_PASSWORD="wrong")
    assert said.exit_code == 4
    assert said.stderr == "wio: Mail address and password do not belong together.\n     Try again.\n"


def test_logout_ends_the_token_and_forgets_everything_here(wio: Wio, hub: RecordedHub, tmp_path: Path) -> None:
    node = SealingNode(now=lambda: int(time.time()))
    hub.on("POST", "/credentials", lambda request: node.answer(decode_credentials(request)))
    wio("creds", "scans")
    hub.on("DELETE", "/sessions/current", None)
    assert wio("logout").exit_code == 0
    assert hub.asked[-1].token == "token-of-alice"
    held = b"".join(path.read_bytes() for path in (tmp_path / "config").rglob("*") if path.is_file())
    assert b"token-of-alice" not in held
    assert b"s/e+c" not in held
    assert wio("whoami").exit_code == 4


def test_logout_from_a_hub_that_is_away_forgets_here_and_says_so(wio: Wio, hub: RecordedHub) -> None:
    hub.stop()
    try:
        said = wio("logout")
        assert said.exit_code == 5
        assert "could not be told" in said.stderr
        assert wio("whoami").exit_code == 4
    finally:
        hub._server.server_close()


# ------------------------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownWorkspace("There is no workspace scans."), 3),
        (NoGrant("You may not read it."), 4),
        (NotSignedIn("The token is no longer good."), 4),
        (NodeOffline("Node lab3 is offline."), 5),
    ],
)
def test_an_error_of_the_hub_is_a_sentence_and_its_exit_code(wio: Wio, hub: RecordedHub, error: Any, code: int) -> None:
    hub.on("GET", "/workspaces/me/scans", error)
    said = wio("w", "show", "scans")
    assert (said.exit_code, said.stdout) == (code, "")
    assert said.stderr == f"wio: {error.message}\n"


def test_an_error_with_json_is_json_on_stderr(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/search", BadQuery("A size is expected.", todo="Write size>1G.", column=6))
    said = wio("find", "size>x", "--json")
    assert said.exit_code == 2
    assert said.stdout == ""
    assert json.loads(said.stderr) == {
        "code": "bad-query", "message": "A size is expected.", "todo": "Write size>1G.", "retry": False, "column": 6,
    }  # fmt: skip


def test_a_hub_that_is_not_there_exits_with_5(wio: Wio) -> None:
    said = wio("whoami", WIO_HUB="http://127.0.0.1:1", WIO_TOKEN="t")
    assert said.exit_code == 5
    assert "cannot be reached" in said.stderr


def test_a_fault_of_our_own_is_a_sentence_too(wio: Wio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wio.session.Session.here", lambda: 1 / 0)
    said = wio("whoami")
    assert said.exit_code == 1
    assert said.stderr.startswith("wio: wio met a fault of its own: ZeroDivisionError")


def test_an_error_cannot_steer_the_terminal(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/me", NoGrant("no\x1b[2J way", todo="\x1b]0;title\x07"))
    assert "\x1b" not in wio("whoami").stderr


# ------------------------------------------------------------------------------------------------------ workspaces


def test_create_says_where_it_lies(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/workspaces", SCANS)
    said = wio("create", "scans", "--root", "homes", "--folder", "old/", "--public")
    assert said.stdout == "alice/scans is made: s3://lab/alice/scans/ on lab3.\nIt holds 3 files, 2.0K.\n"
    assert json.loads(hub.asked[0].body) == {
        "name": "scans", "root": "homes", "public": True, "description": "", "folder": "old/",
    }  # fmt: skip


def test_workspaces_are_listed_once_each(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/workspaces", [SCANS])
    said = wio("ls")
    assert [request.query for request in hub.asked] == ["which=mine", "which=shared"]
    assert said.stdout.splitlines()[1].split() == ["alice/scans", "manage", "3", "2.0K", "lab3", "MR", "scans"]
    assert wio("w", "ls", "--public", "--json").stdout == msgspec.json.format(msgspec.json.encode([SCANS])).decode() + "\n"
    assert hub.asked[-1].query == "which=public"


def test_no_workspaces_is_said_on_stderr(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/workspaces", [])
    said = wio("w", "ls")
    assert (said.exit_code, said.stdout) == (0, "")
    assert "wio create" in said.stderr


def test_a_folder_is_listed_to_its_end_page_by_page(wio: Wio, hub: RecordedHub) -> None:
    first = Listing("alice/scans/", (FileEntry("alice/scans/sub/", 2048, None, folder=True, objects=2),), "sub/", (VIEW,))
    second = Listing("alice/scans/", (FileEntry("alice/scans/a\x1b[31m.nii", 312, AT),), None, (VIEW,))
    hub.on("GET", "/files", first, second)
    said = wio("ls", "scans")
    assert said.stdout == "2.0K  2 files           sub/\n 312  2026-03-02 10:42  a\\x1b[31m.nii\n"
    assert [request.query for request in hub.asked] == ["path=scans&limit=1000", "path=scans&after=sub%2F&limit=1000"]


def test_a_view_that_is_old_is_remarked_on(wio: Wio, hub: RecordedHub) -> None:
    old = NodeView("nas", NodeState.OFFLINE, 840.0, 0, scanning=False)
    hub.on("GET", "/files", Listing("alice/scans/", (), None, (old, VIEW)))
    assert wio("ls", "scans").stderr == "nas: offline, showing what is known\n"


def test_rich_markup_in_names_is_only_text(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/files", Listing("x/", (FileEntry("alice/scans/[red]x[bold].nii", 1, AT),), None, ()))
    assert "[red]x[bold].nii" in wio("ls", "scans").stdout


# ------------------------------------------------------------------------------------------------------ sharing


def receipt(state: ReceiptState = ReceiptState.ENFORCED, exposure_s: int | None = None) -> Receipt:
    proof = ProbeProof("GET lab/alice/scans/a", 403, AT, expected=True)
    enforced = AT if state is ReceiptState.ENFORCED else None
    bob = Subject(SubjectKind.PERSON, 2, "bob")
    return Receipt("7f3a", "lab3", bob, 4, state, AT - 41_000, enforced, 1, (proof,), exposure_s)


def test_unshare_prints_the_receipt(wio: Wio, hub: RecordedHub) -> None:
    done = ShareChange("alice/scans", "bob", Permission.WRITE, None, AT, (receipt(),))
    hub.on("DELETE", "/workspaces/me/scans/shares/bob", done)
    said = wio("unshare", "scans", "bob")
    assert said.exit_code == 0
    assert said.stdout == (
        "scans is no longer shared with bob (write, since 2026-03-02).\n"
        "enforced on lab3 in 41 ms: bob's outstanding key was refused at 10:42:07.318\n"
    )
    assert json.loads(wio("unshare", "scans", "bob", "--json").stdout)["receipts"][0]["enforced_at"] == AT


def test_a_pending_unshare_exits_with_6(wio: Wio, hub: RecordedHub) -> None:
    done = ShareChange("alice/scans", "bob", Permission.WRITE, None, AT, (receipt(ReceiptState.PENDING, 2220),))
    hub.on("DELETE", "/workspaces/me/scans/shares/bob", done)
    said = wio("unshare", "scans", "bob")
    assert said.exit_code == 6
    assert "at most 37 min of exposure" in said.stdout
    assert wio("unshare", "scans", "bob", "--json").exit_code == 6


@pytest.mark.parametrize(
    ("option", "permission"), [((), "read"), (("--write",), "write"), (("--drop",), "drop"), (("--manage",), "manage")]
)
def test_share_sends_the_permission_and_its_end(wio: Wio, hub: RecordedHub, option: tuple[str, ...], permission: str) -> None:
    hub.on(
        "PUT", "/workspaces/bob/cells/shares/%40mri", ShareChange("bob/cells", "@mri", None, Permission(permission), None, ())
    )
    said = wio("share", "bob/cells", "@mri", *option, "--until", "2100-01-01T00:00Z")
    assert said.exit_code == 0, said.output
    assert json.loads(hub.asked[0].body) == {"permission": permission, "until": 4_102_444_800_000_000}


def test_two_permissions_at_once_are_wrong_use(wio: Wio, hub: RecordedHub) -> None:
    assert wio("share", "scans", "bob", "--read", "--write").exit_code == 2
    assert hub.asked == []


def test_shares_of_one_and_of_all_workspaces(wio: Wio, hub: RecordedHub) -> None:
    bob = Share("bob", Permission.READ, AT, None, "alice", applied=False, reason="lab3 is offline")
    hub.on("GET", "/workspaces", [SCANS])
    hub.on("GET", "/workspaces/alice/scans/shares", [bob])
    hub.on("GET", "/workspaces/me/scans/shares", [])
    assert "not yet: lab3 is offline" in wio("shares").stdout
    assert json.loads(wio("shares", "--json").stdout)[0]["workspace"] == "alice/scans"
    assert json.loads(wio("shares", "scans", "--json").stdout) == []


# ------------------------------------------------------------------------------------------------------ search, audit


def test_find_prints_hits_totals_facets_and_how_old_the_view_is(wio: Wio, hub: RecordedHub) -> None:
    page = SearchPage(
        (Hit("alice/scans/T1w.nii", 2_577_136_026, AT, "lab3", "alice", 1.0),),
        2, 3_758_096_384, {"owner": (FacetCount("alice", 1, 1), FacetCount("lab", 1, 1))}, "c1", (VIEW,), 1.5,
    )  # fmt: skip
    last = msgspec.structs.replace(page, hits=(Hit("lab/a.nii", 10, AT, "nas", "lab", 0.5),), cursor=None, facets={})
    hub.on("GET", "/search", page, last)
    said = wio("find", "ext:nii", "size>1G", "--facets", "--sort", "largest")
    assert said.stdout == (
        "2.4G  2026-03-02  alice/scans/T1w.nii  lab3\n"
        "  10  2026-03-02  lab/a.nii            nas\n"
        "2 of 2 files, 3.5G.   by owner: alice 1, lab 1.   lab3: 2 s behind\n"
    )
    assert hub.asked[0].query == "q=ext%3Anii+size%3E1G&sort=largest&limit=50&facets=owner%2Cext%2Ctype%2Cnode"
    assert hub.asked[1].query == "q=ext%3Anii+size%3E1G&sort=largest&limit=49&cursor=c1"


def test_find_without_hits_says_so_and_how_old_the_view_is(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/search", SearchPage((), 0, 0, {}, None, (VIEW,), 1.0))
    said = wio("find", "nowhere")
    assert (said.exit_code, said.stdout) == (0, "Nothing found.   lab3: 2 s behind\n")


def test_columns_stand_below_one_another_whatever_the_script(wio: Wio, hub: RecordedHub) -> None:
    hits = (Hit("alice/脳/a", 1_048_000, AT, "lab3", "alice", 1.0), Hit("alice/ab/a", 7, AT, "nas", "alice", 1.0))
    hub.on("GET", "/search", SearchPage(hits, 2, 8, {}, None, (), 1.0))
    assert wio("find", "a").stdout.splitlines()[:2] == [
        "1023K  2026-03-02  alice/脳/a  lab3",
        "    7  2026-03-02  alice/ab/a  nas",
    ]


def test_a_query_that_begins_with_a_minus_comes_after_two(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/search", SearchPage((), 0, 0, {}, None, (), 1.0))
    assert wio("find", "--json", "--", "-old", "scan").exit_code == 0
    assert hub.asked[0].query.startswith("q=-old+scan&")


def test_audit_is_a_table(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/audit", [AuditEntry(9, AT, "alice", "unshare", "alice/scans", "bob: write")])
    said = wio("audit", "--limit", "5")
    assert said.stdout.splitlines()[1].split()[:4] == ["9", "2026-03-02", "10:42", "alice"]
    assert hub.asked[0].query == "limit=5"


# ------------------------------------------------------------------------------------------------------ keys


def decode_credentials(request: Request) -> NewCredentials:
    return msgspec.json.decode(request.body, type=NewCredentials)


@pytest.fixture
def node(hub: RecordedHub) -> SealingNode:
    made = SealingNode(now=lambda: int(time.time()), mint=lambda number: (f"AK{number}", "s'e$c /+", "TOKEN"))
    hub.on("POST", "/credentials", lambda request: made.answer(decode_credentials(request)))
    return made


@pytest.mark.usefixtures("node")
def test_creds_for_a_shell_survive_the_shell(wio: Wio) -> None:
    said = wio("creds", "scans")
    script = said.stdout + 'printf "%s|%s|%s" "$AWS_SECRET_ACCESS_KEY" "$AWS_ENDPOINT_URL_S3" "$AWS_REGION"'
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == "s'e$c /+|http://127.0.0.1:9000|us-east-1"
    assert "# scans is s3://lab/alice/scans/ (manage)" in said.stderr


@pytest.mark.usefixtures("node")
def test_creds_in_each_format(wio: Wio) -> None:
    process = json.loads(wio("creds", "scans", "--format", "process").stdout)
    assert (process["Version"], process["AccessKeyId"], process["SessionToken"]) == (1, "AK1", "TOKEN")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", process["Expiration"])
    assert wio("creds", "scans", "--format", "dotenv").stdout.startswith("AWS_ACCESS_KEY_ID=AK2\n")
    [key] = json.loads(wio("creds", "scans", "--json").stdout)["keys"]
    assert (key["access_key"], key["opens"][0]["bucket"], key["opens"][0]["prefix"]) == ("AK3", "lab", "alice/scans/")


@pytest.mark.parametrize(
    "words",
    [("creds",), ("creds", "--json"), ("creds", "--format", "dotenv"), ("creds", "--format", "json")],
    ids=" ".join,
)
def test_a_key_that_a_person_asks_for_is_confirmed_by_the_hub_each_time(
    wio: Wio, hub: RecordedHub, node: SealingNode, words: tuple[str, ...]
) -> None:
    for _ in range(2):
        assert wio(*words, "scans/a").exit_code == 0
    assert len(node.minted) == 2
    hub.on("POST", "/credentials", UnknownWorkspace("There is no workspace scans."))
    said = wio(*words, "scans/a")
    assert (said.exit_code, said.stdout) == (3, "")


def test_the_form_for_tools_is_kept_until_the_hub_is_known_to_refuse(wio: Wio, hub: RecordedHub, node: SealingNode) -> None:
    tool = ("creds", "scans", "--format", "process")
    assert wio(*tool).stdout == wio(*tool).stdout
    assert len(node.minted) == 1
    hub.on("POST", "/credentials", NoGrant("You may not read scans."))
    assert wio("creds", "scans").exit_code == 4
    said = wio(*tool)
    assert (said.exit_code, said.stdout) == (4, "")


def test_creds_asks_for_what_the_options_say(wio: Wio, node: SealingNode) -> None:
    assert wio("creds", "scans/p/", "--read-only", "--narrow", "--ttl", "15m").exit_code == 0
    [asked] = node.minted
    assert (asked.paths, asked.life_s, asked.read_only, asked.narrow) == (("scans/p/",), 900, True, True)


def test_paths_on_two_nodes_need_a_format_that_holds_two_keys(wio: Wio, hub: RecordedHub, node: SealingNode) -> None:
    nas = SealingNode("nas", now=node.now)

    def both(request: Request) -> Credentials:
        asked = decode_credentials(request)
        return Credentials((node.credential(asked, ("a",)), nas.credential(asked, ("b",))))

    hub.on("POST", "/credentials", both)
    said = wio("creds", "a", "b")
    assert said.exit_code == 2
    assert "lab3 and nas" in said.stderr
    assert len(json.loads(wio("creds", "a", "b", "--json").stdout)["keys"]) == 2


def test_a_changed_node_key_stops_the_command_until_it_is_trusted(wio: Wio, hub: RecordedHub, node: SealingNode) -> None:
    assert wio("creds", "scans").exit_code == 0
    node.key = new_key(b"m" * 32)
    now = public_bytes(node.key)
    said = wio("creds", "scans", "--read-only")
    assert said.exit_code == 1
    assert "wio node trust lab3" in said.stderr
    hub.on("GET", "/nodes/lab3", msgspec.structs.replace(LAB3, key=to_text(now)))
    assert "NOT as seen before" in wio("node", "show", "lab3").stdout
    assert wio("node", "trust", "lab3", "--fingerprint", "aaaa-bbbb-cccc-dddd").exit_code == 1
    assert wio("creds", "scans", "--read-only").exit_code == 1
    assert wio("node", "trust", "lab3", "--fingerprint", fingerprint(now)).exit_code == 0
    assert wio("creds", "scans", "--read-only").exit_code == 0


# ------------------------------------------------------------------------------------------------------ links


@pytest.fixture
def linking(hub: RecordedHub, node: SealingNode) -> SealingNode:
    """A node that presigns."""
    hub.on("POST", "/links", lambda request: node.link(msgspec.json.decode(request.body, type=NewLink)))
    return node


def test_presign_prints_the_address_alone_and_says_the_rest_beside_it(wio: Wio, linking: SealingNode) -> None:
    said = wio("presign", "scans/a b.txt", "--expires", "2h")
    assert said.exit_code == 0, said.output
    assert said.stdout == f"http://127.0.0.1:9000/lab/scans/a%20b.txt?X-Amz-Signature={1:064x}\n"
    assert "wio links rm 901" in said.stderr
    [asked] = linking.linked
    assert (asked.path, asked.life_s, asked.put) == ("scans/a b.txt", 7200, False)


def test_presign_as_json_has_the_method_and_the_end(wio: Wio, linking: SealingNode) -> None:
    answer = json.loads(wio("presign", "scans/new", "--put", "--json").stdout)
    assert (answer["id"], answer["method"], answer["node"]) == (901, "PUT", "lab3")
    assert answer["expires_at"] == (linking.now() + 86_400) * 1_000_000
    assert linking.linked[0].put


@pytest.mark.parametrize("never", ["8x", "never", "0"])
def test_presign_refuses_what_is_no_length_of_time(wio: Wio, linking: SealingNode, never: str) -> None:
    assert wio("presign", "scans/a", "--expires", never).exit_code == 2
    assert linking.linked == []


def test_a_refused_link_prints_nothing_and_says_why(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/links", OverCeiling("The owner of lab3 wants no presigned links."))
    said = wio("presign", "scans/a")
    assert (said.exit_code, said.stdout) == (4, "")
    assert "wants no presigned links" in said.stderr


@pytest.mark.parametrize(
    "signed",
    [{"method": "PUT"}, {"url": "javascript:x(1)"}, {"url": "http://lab/\x1b[31m"}, {"url": "http://a@b/x"}, {"expires": 1}],
    ids=str,
)
def test_a_link_that_is_not_what_was_asked_for_is_not_printed(
    wio: Wio, hub: RecordedHub, node: SealingNode, signed: dict[str, Any]
) -> None:
    hub.on("POST", "/links", lambda request: node.link(msgspec.json.decode(request.body, type=NewLink), **signed))
    said = wio("presign", "scans/a")
    assert said.exit_code != 0
    assert said.stdout == ""


def test_a_link_that_another_node_made_is_not_printed(wio: Wio, hub: RecordedHub, linking: SealingNode) -> None:
    assert wio("presign", "scans/a").exit_code == 0
    linking.key = new_key(b"m" * 32)
    said = wio("presign", "scans/a")
    assert (said.exit_code, said.stdout) == (1, "")
    assert "another key than before" in said.stderr
    linking.key = new_key(b"n" * 32)
    elsewhere = to_text(client_key(X25519PrivateKey.generate()))
    hub.on("POST", "/links", linking.link(NewLink(elsewhere, "scans/a")))
    said = wio("presign", "scans/a")
    assert (said.exit_code, said.stdout) == (1, "")


LINKS = [
    Link(901, "alice", "alice/scans/a.txt", "lab3", put=False, created_at=AT, expires_at=AT),
    Link(902, "bob", "alice/scans/new", "lab3", put=True, created_at=AT, expires_at=AT),
]


def test_links_are_listed_with_and_without_a_path(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/links", LINKS)
    said = wio("links")
    assert [line.split()[:4] for line in said.stdout.splitlines()[1:]] == [
        ["901", "alice/scans/a.txt", "read", "alice"],
        ["902", "alice/scans/new", "upload", "bob"],
    ]
    assert json.loads(wio("links", "scans", "--json").stdout)[0]["id"] == 901
    assert [request.query for request in hub.asked] == ["", "path=scans"]
    assert wio("links", "ls", "rm").exit_code == 0, "a workspace may be called rm"
    assert hub.asked[-1].query == "path=rm"
    hub.on("GET", "/links", [])
    assert wio("links").stderr == "No links.\n"


def _ended(link: Link, **changes: Any) -> LinkRevoked:
    subject = Subject(SubjectKind.LINK, link.id, f"{link.by}'s link")
    proof = ProbeProof("HEAD lab/x", 403, AT + 12_000, expected=True)
    receipt = Receipt("r", "lab3", subject, 2, ReceiptState.ENFORCED, AT, AT + 12_000, keys_out=1, proofs=(proof,))
    return LinkRevoked(link, msgspec.structs.replace(receipt, **changes))


def test_links_are_ended_by_number_or_all_at_once(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/links", LINKS)
    hub.on("DELETE", "/links/901", _ended(LINKS[0]))
    waits = {"state": ReceiptState.PENDING, "enforced_at": None, "proofs": (), "exposure_s": 3600}
    hub.on("DELETE", "/links/902", _ended(LINKS[1], **waits))
    said = wio("links", "rm", "901")
    assert said.exit_code == 0
    assert said.stdout.startswith("Link 901 to alice/scans/a.txt: dead in 12 ms; lab3 refused it at ")
    said = wio("links", "rm", "--all")
    assert said.exit_code == 6, "one is pending"
    assert "pending on lab3" in said.stdout
    assert "at most 1 h of exposure" in said.stdout
    for words in ((), ("901", "--all"), ("x",)):
        assert wio("links", "rm", *words).exit_code == 2


def test_unshare_says_how_many_links_died_with_it(wio: Wio, hub: RecordedHub) -> None:
    links = tuple(_ended(link).receipt for link in (LINKS[1], msgspec.structs.replace(LINKS[1], id=903)))
    links += (_ended(LINKS[0], state=ReceiptState.PENDING, exposure_s=60).receipt,)
    change = ShareChange("alice/scans", "bob", Permission.READ, None, AT, (), links)
    hub.on("DELETE", "/workspaces/me/scans/shares/bob", change)
    said = wio("unshare", "scans", "bob")
    assert said.stdout.splitlines()[-2:] == [
        "1 link of alice's on scans dies when lab3 is back; at most 1 min of exposure.",
        "2 links of bob's on scans are dead.",
    ]
    assert said.exit_code == 6


# ------------------------------------------------------------------------------------------------------ nodes, roots


def test_node_invite_prints_the_line_to_run(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/invitations", Invitation("wio1.abc", AT, "wio-agent join wio1.abc"))
    said = wio("node", "invite", "lab3", "--ttl", "1h")
    assert said.stdout == "wio-agent join wio1.abc\n"
    assert json.loads(hub.asked[0].body) == {"name": "lab3", "life_s": 3600, "replace": False}


def test_a_node_is_shown_with_its_probe_table(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/nodes/lab3", LAB3)
    hub.on("GET", "/nodes", [LAB3])
    said = wio("node", "show", "lab3").stdout
    for text in ("assume-role", "no bucket but lab", "names are visible", fingerprint(b"k" * 32), "not seen before"):
        assert text in said
    assert "lab3" in wio("node", "ls").stdout


def test_a_node_is_evicted_only_when_confirmed(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/nodes/lab3", LAB3)
    hub.on("DELETE", "/nodes/lab3", None)
    assert wio("node", "evict", "lab3").exit_code == 2
    assert hub.asked == []
    assert wio("node", "evict", "lab3", "--yes").exit_code == 0
    assert hub.asked[-1].method == "DELETE"


@pytest.mark.parametrize("words", [("lab3/homes",), ("homes", "--node", "lab3")])
def test_a_root_is_made(wio: Wio, hub: RecordedHub, words: tuple[str, ...]) -> None:
    hub.on("POST", "/roots", HOMES)
    said = wio(
        "root", "create", *words, "--bucket", "lab", "--prefix", "a", "--kind", "unmanaged-private", "--accept-visible-names"
    )
    assert said.exit_code == 0, said.output
    assert said.stderr == "warning: a warning\n"
    assert json.loads(hub.asked[0].body) == {
        "node": "lab3", "name": "homes", "kind": "unmanaged-private", "bucket": "lab", "prefix": "a/", "layout": None,
        "accept_visible_names": True, "level": "names", "pace": 0, "quiet": "",
    }  # fmt: skip


def test_roots_are_listed_and_shown(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/roots", [HOMES])
    hub.on("GET", "/roots/lab3/homes", HOMES)
    assert "lab3/homes" in wio("root", "ls").stdout
    assert "0" * 16 in wio("root", "show", "lab3/homes").stdout
    assert wio("root", "show", "homes").exit_code == 2


def scanned(state: ScanState | None, started: int, *, searchable: int = 0, problem: str = "") -> ScanStatus:
    return ScanStatus("lab3/homes", state, 3, 2048, started, started + 500_000, searchable, problem)


def test_a_scan_is_watched_until_everything_can_be_found(wio: Wio, hub: RecordedHub) -> None:
    before, running = scanned(ScanState.DONE, 1, searchable=3), scanned(ScanState.RUNNING, 2)
    done = scanned(ScanState.DONE, 2, searchable=3)
    hub.on("POST", "/roots/lab3/homes/scan", before)
    hub.on("GET", "/roots/lab3/homes/scan", before, before, running, scanned(ScanState.DONE, 2, searchable=1), done)
    said = wio("root", "scan", "lab3/homes")
    assert said.exit_code == 0, said.output
    assert said.stdout == "lab3/homes holds 3 files, 2.0K, scanned in 500 ms; 3 can be found.\n"
    assert len(hub.asked) == 6


def test_files_in_no_workspace_yet_are_said_to_need_one(wio: Wio, hub: RecordedHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wio.cli.roots._INDEX_STILL_S", 0.0)
    hub.on("POST", "/roots/lab3/homes/scan", scanned(None, 0))
    hub.on("GET", "/roots/lab3/homes/scan", scanned(None, 0), scanned(ScanState.DONE, 2))
    hub.on("GET", "/roots/lab3/homes", msgspec.structs.replace(HOMES, kind=RootKind.UNMANAGED_PRIVATE))
    said = wio("root", "scan", "lab3/homes")
    assert said.stdout == (
        "lab3/homes holds 3 files, 2.0K, scanned in 500 ms; they can be found once their folder is made a workspace: "
        "wio create NAME --root lab3/homes --folder FOLDER\n"
    )


@pytest.mark.parametrize(
    ("searchable", "kind", "level", "says"),
    [
        (3, RootKind.UNMANAGED_PRIVATE, IndexLevel.NAMES, "3 can be found."),
        (1, RootKind.UNMANAGED_PRIVATE, IndexLevel.NAMES, "1 can be found, the others once their folder is a workspace"),
        (1, RootKind.PRIVATE, IndexLevel.NAMES, "1 can be found; the others are outside workspaces, or not indexed yet."),
        (0, RootKind.PRIVATE, IndexLevel.NONE, "0 can be found: the hub may not know"),
    ],
)
def test_what_of_a_root_can_be_found_is_explained(searchable: int, kind: RootKind, level: IndexLevel, says: str) -> None:
    root = msgspec.structs.replace(HOMES, kind=kind, level=level)
    assert roots.findable(scanned(ScanState.DONE, 2, searchable=searchable), root).startswith(says)


def test_a_scan_that_fails_says_why_and_exits_with_1(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/roots/lab3/homes/scan", scanned(None, 0))
    hub.on("GET", "/roots/lab3/homes/scan", scanned(None, 0), scanned(ScanState.FAILED, 2, problem="the bucket is gone"))
    said = wio("root", "scan", "lab3/homes")
    assert said.exit_code == 1
    assert "the bucket is gone" in said.stderr


# ------------------------------------------------------------------------------------------------------ as a program


def test_ctrl_c_exits_with_130_and_without_a_traceback(hub: RecordedHub, tmp_path: Path) -> None:
    reached = []

    def slow(_: Request) -> Any:
        reached.append(True)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            os.sched_yield()
        return ALICE

    hub.on("GET", "/me", slow)
    environment = os.environ | {"WIO_CONFIG": str(tmp_path), "WIO_HUB": hub.url, "WIO_TOKEN": "t"}
    # Whoever starts the tests in the background may have had Ctrl-C ignored, which is inherited.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{heard}; from wio.cli import main; main()", "whoami"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 20
        while not reached and time.monotonic() < deadline:
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "none_of"),
    [
        (("whoami",), ("pydantic", "rich.console", "cryptography.hazmat.primitives.hpke", "botocore")),
        (("find", "scan"), ("pydantic", "rich.console", "cryptography.hazmat.primitives.hpke", "botocore")),
        (("share", "scans", "bob"), ("pydantic", "rich.console", "cryptography.hazmat.primitives.hpke", "botocore")),
        (("creds", "scans"), ("pydantic", "rich.console", "botocore")),
    ],
)
@pytest.mark.usefixtures("node")
def test_a_plain_command_loads_nothing_slow_that_it_does_not_need(
    hub: RecordedHub, tmp_path: Path, words: tuple[str, ...], none_of: tuple[str, ...]
) -> None:
    hub.on("GET", "/me", ALICE)
    hub.on("GET", "/search", SearchPage((Hit("alice/a", 1, AT, "lab3", "alice", 1.0),), 1, 1, {}, None, (VIEW,), 1.0))
    hub.on("PUT", "/workspaces/me/scans/shares/bob", ShareChange("alice/scans", "bob", None, Permission.READ, None, ()))
    code = f"""
import sys
from wio.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in {none_of!r} if name in sys.modules]
print("loaded:", loaded, file=sys.stderr)
"""
    environment = os.environ | {"WIO_CONFIG": str(tmp_path), "WIO_HUB": hub.url, "WIO_TOKEN": "t"}
    said = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True, check=True)
    assert said.stderr.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize(
    "words", [("find", "x", "--limit", "0"), ("find", "x", "--limit", "x"), ("creds", "x", "--format", "xml"), ("share", "x")]
)
def test_what_the_quick_check_leaves_to_typer_is_still_checked(wio: Wio, hub: RecordedHub, words: tuple[str, ...]) -> None:
    said = wio(*words)
    assert (said.exit_code, hub.asked) == (2, [])
    assert "Traceback" not in said.stderr


def test_help_needs_none_of_the_slow_libraries() -> None:
    code = "import sys, wio.cli; print([m for m in ('httpx', 'botocore', 'rich.table', 'asyncio') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
