"""The commands about groups, roles, requests, quotas, explanations and history, against a hub that listens."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from protocol.api import (
    AccessEntry,
    AccessRequest,
    AuditCheck,
    AuditEntry,
    Confirmed,
    Credentials,
    FileDetails,
    Group,
    GroupChange,
    Member,
    NewCredentials,
    Quota,
    QuotaKind,
    Reacher,
    Root,
    RootKind,
    RootRetired,
    Unreadable,
    Why,
    WhyStep,
    Workspace,
    WorkspaceEnded,
)
from protocol.errors import Conflict, NoGrant, NotFound
from protocol.grants import Permission, ProbeProof, Receipt, ReceiptState, Subject, SubjectKind
from protocol.messages import IndexLevel
from protocol.names import Layout
from tests.wio.standins import ALICE, RecordedHub, Request, SealingNode

Wio = Callable[..., Result]
AT = 1_772_448_127_318_000
"""2026-03-02 10:42:07.318 UTC."""
SCANS = Workspace(
    1, "alice", "scans", "lab3", "homes", "lab", "alice/scans/", "MR scans", False, Permission.MANAGE, 3, 2048, AT
)  # fmt: skip
MRI = Group(9, "mri", "the MR group", "alice", (Member("alice", True, AT), Member("bob", False, AT)), AT)
HOMES = Root(
    4, "lab3", "homes", "alice", RootKind.PRIVATE, "lab", "", Layout.PREFIX, IndexLevel.NAMES, 3, 2048, "0" * 16, (), AT,
    ("@mri", "public"), ("carol",),
)  # fmt: skip
FULL = Quota(5, QuotaKind.USER, "alice", 900 * 10**9, 10**12, 950 * 10**9, None, ("versions are not counted",))
ASKED = AccessRequest(4711, "alice/scans", "bob", Permission.WRITE, "for the review", AT, None, None, None)
WHY = Why(
    "bob", "alice/scans/a", False, None, "bob has no grant on alice/scans.",
    (WhyStep("grant", False, "shared until 10:42:07"), WhyStep("public", False, "no public root")), "403 for this file", True,
    "Ask alice: wio request alice/scans",
)  # fmt: skip


def receipt(number: int, state: ReceiptState = ReceiptState.ENFORCED, exposure_s: int | None = None) -> Receipt:
    proof = ProbeProof("GET lab/alice/scans/a", 403, AT, expected=True)
    done = state is ReceiptState.ENFORCED
    who = Subject(SubjectKind.PERSON, number, f"p{number}")
    return Receipt(
        f"r{number}", "lab3", who, 4, state, AT - 41_000, AT if done else None, 1, (proof,) if done else (), exposure_s
    )  # fmt: skip


def body(hub: RecordedHub) -> Any:
    return json.loads(hub.asked[-1].body)


# ------------------------------------------------------------------------------------------------------ groups


def test_a_group_is_made_with_or_without_the_at(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/groups", MRI)
    for name in ("mri", "@mri"):
        said = wio("group", "create", name, "--description", "the MR group")
        assert said.exit_code == 0, said.output
        assert body(hub) == {"name": "mri", "description": "the MR group"}
    assert "@mri is made" in said.stdout


def test_groups_are_listed_and_shown_with_who_may_change_them(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/groups", [MRI, msgspec.structs.replace(MRI, name="eeg", members=())])
    hub.on("GET", "/groups/mri", MRI)
    listed = wio("group", "ls").stdout.splitlines()
    assert listed[1].split()[:3] == ["@mri", "alice", "2"]
    assert listed[2].split()[:3] == ["@eeg", "alice", "-"]
    shown = wio("group", "show", "@mri").stdout
    assert [line.split()[0] for line in shown.splitlines()[-2:]] == ["alice", "bob"]
    assert "everything" in shown
    assert json.loads(wio("group", "show", "mri", "--json").stdout)["members"][1]["username"] == "bob"


def test_a_group_one_is_not_in_keeps_its_people_to_itself(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/groups/mri", msgspec.structs.replace(MRI, members=()))
    said = wio("group", "show", "@mri")
    assert "You are not in it" in said.stderr
    assert "person" not in said.stdout


def test_taking_somebody_in_says_what_the_node_did(wio: Wio, hub: RecordedHub) -> None:
    hub.on("PUT", "/groups/mri/members/bob", GroupChange("mri", (receipt(2),)))
    said = wio("group", "add", "@mri", "bob", "--manager")
    assert said.exit_code == 0, said.output
    assert body(hub) == {"manager": True}
    assert said.stdout == (
        "bob is in @mri, and may change who is.\nenforced on lab3 in 41 ms: p2's outstanding key was refused at 10:42:07.318\n"
    )


def test_a_change_for_many_is_one_line_and_the_exit_code_is_the_worst(wio: Wio, hub: RecordedHub) -> None:
    many = (receipt(1), receipt(2), receipt(3))
    hub.on("DELETE", "/groups/mri/members/bob", GroupChange("mri", many))
    said = wio("group", "remove", "@mri", "bob")
    assert said.stdout.splitlines()[1] == (
        "enforced on lab3 in 41 ms: 3 people's 3 outstanding keys were refused by 10:42:07.318"
    )
    hub.on("DELETE", "/groups/mri/members/bob", GroupChange("mri", (*many, receipt(4, ReceiptState.PENDING, 2220))))
    said = wio("group", "remove", "mri", "bob")
    assert said.exit_code == 6
    assert "at most 37 min of exposure" in said.stdout
    assert wio("group", "remove", "mri", "bob", "--json").exit_code == 6
    hub.on("DELETE", "/groups/mri/members/bob", GroupChange("mri", (*many, receipt(4, ReceiptState.REFUSED))))
    assert wio("group", "remove", "mri", "bob").exit_code == 1


def test_a_group_is_deleted_only_when_confirmed(wio: Wio, hub: RecordedHub) -> None:
    hub.on("DELETE", "/groups/mri", GroupChange("mri", (receipt(1),)))
    assert wio("group", "rm", "@mri").exit_code == 2
    assert hub.asked == []
    said = wio("group", "rm", "@mri", "--yes")
    assert said.exit_code == 0
    assert "nothing is shared with it any more" in said.stdout


@pytest.mark.parametrize("name", ["", "@", "..", "@.."])
def test_what_is_no_group_never_reaches_another_address(wio: Wio, hub: RecordedHub, name: str) -> None:
    assert wio("group", "show", name).exit_code == 2
    assert hub.asked == []


# ------------------------------------------------------------------------------------------------------ roots, nodes


def test_a_root_is_changed_only_where_something_is_given(wio: Wio, hub: RecordedHub) -> None:
    hub.on("PATCH", "/roots/lab3/homes", HOMES)
    said = wio("root", "set", "lab3/homes", "--creators", "bob, @mri,public,bob")
    assert said.exit_code == 0, said.output
    assert body(hub) == {"creators": ["bob", "@mri", "public"]}
    assert "@mri, everyone" in said.stdout
    assert wio("root", "set", "lab3/homes", "--level", "none", "--pace", "0", "--managers", "").exit_code == 0
    assert body(hub) == {"level": "none", "pace": 0, "managers": []}


def test_a_root_is_not_changed_by_nothing(wio: Wio, hub: RecordedHub) -> None:
    assert wio("root", "set", "lab3/homes").exit_code == 2
    assert wio("root", "set", "lab3/homes", "--level", "all").exit_code == 2
    assert wio("root", "set", "homes", "--pace", "1").exit_code == 2
    assert hub.asked == []


def test_show_says_who_may_do_what_with_a_root(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/roots/lab3/homes", HOMES, msgspec.structs.replace(HOMES, creators=(), managers=()))
    assert "@mri, everyone" in wio("root", "show", "lab3/homes").stdout
    assert wio("root", "show", "lab3/homes").stdout.count("its owner only") == 2


def test_a_root_is_retired_only_when_confirmed_and_its_data_is_said_to_stay(wio: Wio, hub: RecordedHub) -> None:
    hub.on("DELETE", "/roots/lab3/homes", RootRetired("lab3/homes", 2, (receipt(1), receipt(2))))
    assert wio("root", "retire", "lab3/homes").exit_code == 2
    assert hub.asked == []
    said = wio("root", "retire", "lab3/homes", "--yes")
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[0] == "lab3/homes is retired with 2 workspaces. Every file stays where it is."
    assert "2 people's 2 outstanding keys" in said.stdout


def test_a_node_is_confirmed(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/nodes/lab3/confirm", Confirmed("lab3", 3), Confirmed("lab3", 0))
    assert "3 grant sets" in wio("node", "confirm", "lab3").stdout
    assert "no confirmation" in wio("node", "confirm", "lab3").stdout


# ------------------------------------------------------------------------------------------------------ workspaces


def test_a_workspace_is_described_renamed_archived_and_opened(wio: Wio, hub: RecordedHub) -> None:
    hub.on("PATCH", "/workspaces/me/scans", SCANS)
    assert wio("w", "describe", "scans", "MR scans").stdout == "alice/scans: MR scans\n"
    assert body(hub) == {"description": "MR scans"}
    assert "s3://lab/alice/scans/ on lab3" in wio("w", "rename", "scans", "mri").stdout
    assert body(hub) == {"name": "mri"}
    assert "can only read" in wio("w", "archive", "scans").stdout
    assert body(hub) == {"archived": True}
    assert wio("w", "unarchive", "scans").exit_code == 0
    assert body(hub) == {"archived": False}


def test_a_workspace_is_handed_over_and_what_is_kept_is_said(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/workspaces/me/scans/handover", msgspec.structs.replace(SCANS, owner="bob", permission=None))
    said = wio("w", "handover", "scans", "bob")
    assert said.stdout == "scans is bob's now: bob/scans. You have no part in it any more.\n"
    assert body(hub) == {"to": "bob", "keep": None}
    assert "You may still read it." in wio("w", "handover", "scans", "bob", "--keep", "read").stdout
    assert body(hub) == {"to": "bob", "keep": "read"}
    assert wio("w", "handover", "scans", "bob", "--keep", "manage").exit_code == 2


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("POST", "/workspaces/me/scans/handover", ("handover", "scans", "bob")),
        ("PATCH", "/workspaces/me/scans", ("archive", "scans")),
        ("PATCH", "/workspaces/me/scans", ("unarchive", "scans")),
    ],
)
def test_what_a_change_of_a_workspace_did_to_keys_that_are_out_is_said_and_is_the_exit_code(
    wio: Wio, hub: RecordedHub, method: str, path: str, words: tuple[str, ...]
) -> None:
    for state, exposure_s, code, told in (
        (ReceiptState.ENFORCED, None, 0, "enforced on lab3 in 41 ms"),
        (ReceiptState.PENDING, 600, 6, "pending on lab3"),
        (ReceiptState.REFUSED, None, 1, "refused on lab3"),
    ):
        hub.on(method, path, msgspec.structs.replace(SCANS, receipts=(receipt(1, state, exposure_s),)))
        said = wio("w", *words)
        assert said.exit_code == code, said.output
        assert told in said.stdout
        as_json = wio("w", *words, "--json")
        assert as_json.exit_code == code
        assert [one["state"] for one in json.loads(as_json.stdout)["receipts"]] == [state.value]


def test_keys_that_are_kept_are_forgotten_when_a_path_changes_its_meaning(wio: Wio, hub: RecordedHub) -> None:
    node = SealingNode(now=lambda: int(time.time()))
    hub.on("POST", "/credentials", lambda request: node.answer(msgspec.json.decode(request.body, type=NewCredentials)))
    hub.on("PATCH", "/workspaces/me/scans", SCANS)
    wio("creds", "scans", "--format", "process")
    wio("w", "rename", "scans", "mri")
    wio("creds", "scans", "--format", "process")
    assert len(node.minted) == 2


def ended(hub: RecordedHub, *receipts: Receipt) -> None:
    hub.on("GET", "/workspaces/me/scans", SCANS)
    hub.on("DELETE", "/workspaces/alice/scans", WorkspaceEnded("alice/scans", "lab", "alice/scans/", receipts))


def test_a_workspace_is_removed_only_when_confirmed_and_keeps_its_files(wio: Wio, hub: RecordedHub) -> None:
    ended(hub, receipt(1))
    said = wio("w", "rm", "scans")
    assert said.exit_code == 2
    assert [one.method for one in hub.asked] == ["GET"]
    said = wio("w", "rm", "scans", "--yes")
    assert said.exit_code == 0, said.output
    assert said.stdout.startswith(
        "alice/scans is removed. Its files stay where they are: s3://lab/alice/scans/ on lab3.\nenforced on lab3"
    )
    assert not [one for one in hub.asked if one.path == "/credentials"]
    answer = json.loads(wio("w", "rm", "scans", "--yes", "--json").stdout)
    assert (answer["data"], answer["objects"], answer["receipts"][0]["node"]) == ("kept", 0, "lab3")


@pytest.mark.parametrize("change", [{"owner": "carol"}, {"archived_at": AT}])
def test_files_are_deleted_by_their_owner_and_never_from_an_archive(wio: Wio, hub: RecordedHub, change: dict[str, Any]) -> None:
    ended(hub)
    hub.on("GET", "/workspaces/me/scans", msgspec.structs.replace(SCANS, **change))
    hub.on("GET", "/me", ALICE)
    said = wio("w", "rm", "scans", "--delete-data", "--yes")
    assert said.exit_code in {2, 4}
    assert {one.method for one in hub.asked} == {"GET"}


def test_files_are_deleted_only_where_the_hub_says_twice_that_they_lie(wio: Wio, hub: RecordedHub) -> None:
    node = SealingNode(now=lambda: int(time.time()), bucket="another")
    ended(hub)
    hub.on("GET", "/me", ALICE)
    hub.on("POST", "/credentials", lambda request: node.answer(msgspec.json.decode(request.body, type=NewCredentials)))
    said = wio("w", "rm", "scans", "--delete-data", "--yes")
    assert said.exit_code == 1
    assert "Nothing was deleted" in said.stderr
    assert [asked.narrow for asked in node.minted] == [True]
    assert "DELETE" not in {one.method for one in hub.asked}


def typed(hub: RecordedHub, config: Path, words: tuple[str, ...], answers: bytes) -> tuple[int, str]:
    """Run `wio …` with somebody at the keyboard who answers like this."""
    primary, secondary = pty.openpty()
    environment = os.environ | {"WIO_CONFIG": str(config), "WIO_HUB": hub.url, "WIO_TOKEN": "t"}
    command = [sys.executable, "-c", "from wio.cli import main; main()", *words]
    process = subprocess.Popen(
        command, env=environment, stdin=secondary, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    os.close(secondary)
    os.write(primary, answers)
    out, _ = process.communicate(timeout=60)
    while select.select([primary], [], [], 0)[0]:  # what the terminal echoed
        try:
            os.read(primary, 4096)
        except OSError:
            break
    os.close(primary)
    return process.returncode, out.decode()


@pytest.mark.parametrize("answers", [b"\ny\n", b"keep\ny\n", b"what?\nk\ny\n"])
def test_somebody_at_a_terminal_is_asked_and_enter_keeps_the_files(hub: RecordedHub, tmp_path: Path, answers: bytes) -> None:
    ended(hub)
    code, said = typed(hub, tmp_path, ("w", "rm", "scans"), answers)
    assert code == 0, said
    assert "alice/scans holds 3 files, 2.0K, at s3://lab/alice/scans/ on lab3." in said
    assert "Its files stay where they are" in said
    assert [one.method for one in hub.asked] == ["GET", "DELETE"]


@pytest.mark.parametrize("answers", [b"\nn\n", b"delete\nn\n", b"delete\n\n"])
def test_whoever_does_not_go_on_changes_nothing(hub: RecordedHub, tmp_path: Path, answers: bytes) -> None:
    ended(hub)
    code, said = typed(hub, tmp_path, ("w", "rm", "scans"), answers)
    assert code == 130, said
    assert [one.method for one in hub.asked] == ["GET"]


# ------------------------------------------------------------------------------------------------------ over quota


def test_over_quota_and_archived_are_said_where_a_workspace_is_shown(wio: Wio, hub: RecordedHub) -> None:
    full = msgspec.structs.replace(SCANS, permission=Permission.TIDY, archived_at=AT, warnings=("quota of alice: 99% used",))
    hub.on("GET", "/workspaces", [full])
    hub.on("GET", "/workspaces/me/scans", full)
    assert "read and delete: over quota" in wio("w", "ls").stdout
    assert wio("w", "ls").stderr == "warning: quota of alice: 99% used\n"
    assert "archived. MR scans" in wio("w", "ls").stdout
    shown = wio("w", "show", "scans").stdout
    for text in ("read and delete: over quota", "2026-03-02 10:42", "quota of alice: 99% used"):
        assert text in shown
    assert json.loads(wio("w", "show", "scans", "--json").stdout)["permission"] == "tidy"


def test_a_key_for_a_workspace_over_quota_says_what_it_can_do(wio: Wio, hub: RecordedHub) -> None:
    node = SealingNode(now=lambda: int(time.time()))

    def tidy(request: Request) -> Credentials:
        [key] = node.answer(msgspec.json.decode(request.body, type=NewCredentials)).keys
        opens = tuple(msgspec.structs.replace(one, permission=Permission.TIDY) for one in key.opens)
        return Credentials((msgspec.structs.replace(key, opens=opens),), ("alice is over quota",))

    hub.on("POST", "/credentials", tidy)
    said = wio("creds", "scans")
    assert "(read and delete: over quota)" in said.stderr
    assert "# warning: alice is over quota" in said.stderr
    assert "quota" not in said.stdout


# ------------------------------------------------------------------------------------------------------ requests


def test_access_is_asked_for(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/requests", ASKED)
    said = wio("request", "alice/scans/", "--write", "--message", "for the review")
    assert said.stdout == "Asked to write alice/scans: request 4711.\n"
    assert body(hub) == {"workspace": "alice/scans", "permission": "write", "message": "for the review"}
    assert wio("request", "scans").exit_code == 2
    assert wio("request", "alice/scans/sub").exit_code == 2
    assert len(hub.asked) == 1


def test_requests_are_listed_with_their_answers(wio: Wio, hub: RecordedHub) -> None:
    done = msgspec.structs.replace(ASKED, id=4712, answered_at=AT, granted=False, answered_by="alice")
    hub.on("GET", "/requests", [ASKED, done])
    lines = wio("requests").stdout.splitlines()
    assert "none yet" in lines[1]
    assert "no by alice" in lines[2]


def test_a_request_is_answered(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/requests/4711/answer", msgspec.structs.replace(ASKED, answered_at=AT, granted=True, answered_by="alice"))
    said = wio("answer", "4711", "yes", "--until", "2100-01-01T00:00Z")
    assert said.stdout == "bob may now write alice/scans, until 2100-01-01 00:00.\n"
    assert body(hub) == {"yes": True, "until": 4_102_444_800_000_000}
    hub.on("POST", "/requests/4711/answer", msgspec.structs.replace(ASKED, answered_at=AT, granted=False))
    assert "is told no" in wio("answer", "4711", "no").stdout
    assert body(hub) == {"yes": False, "until": None}


@pytest.mark.parametrize("words", [("4711", "maybe"), ("one", "yes"), ("4711", "no", "--until", "7d"), ("-1", "yes")])
def test_an_answer_that_is_none_is_wrong_use(wio: Wio, hub: RecordedHub, words: tuple[str, ...]) -> None:
    assert wio("answer", *words).exit_code == 2
    assert hub.asked == []


def test_a_request_answered_already_is_said(wio: Wio, hub: RecordedHub) -> None:
    hub.on("POST", "/requests/4711/answer", Conflict("Request 4711 was answered by alice."))
    said = wio("answer", "4711", "yes")
    assert (said.exit_code, said.stdout) == (1, "")


# ------------------------------------------------------------------------------------------------------ quotas


def test_a_quota_is_set_with_sizes_as_in_a_search_and_says_what_it_does_not_see(wio: Wio, hub: RecordedHub) -> None:
    hub.on("PUT", "/quotas", FULL)
    said = wio("quota", "set", "user", "alice", "--hard", "1T", "--soft", "900G")
    assert said.exit_code == 0, said.output
    assert body(hub) == {"kind": "user", "of": "alice", "soft": 900 * 10**9, "hard": 10**12}
    assert said.stdout == "user alice: 885GiB (95%) used; warn at 900G, stop at 1T.\n"
    assert said.stderr == "note: versions are not counted\n"


def test_one_limit_is_changed_and_the_other_stays(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/quotas", [FULL])
    hub.on("PUT", "/quotas", FULL)
    wio("quota", "set", "user", "alice", "--hard", "2T")
    assert body(hub) == {"kind": "user", "of": "alice", "soft": 900 * 10**9, "hard": 2 * 10**12}
    wio("quota", "set", "user", "alice", "--soft", "none")
    assert body(hub) == {"kind": "user", "of": "alice", "soft": None, "hard": 10**12}


def test_a_workspace_of_ones_own_needs_no_owner(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/me", ALICE)
    hub.on("GET", "/quotas", [])
    hub.on("PUT", "/quotas", msgspec.structs.replace(FULL, kind=QuotaKind.WORKSPACE, of="alice/scans"))
    assert wio("quota", "set", "workspace", "scans", "--hard", "1.5GiB").exit_code == 0
    assert body(hub) == {"kind": "workspace", "of": "alice/scans", "soft": None, "hard": 3 << 29}


@pytest.mark.parametrize(
    "words",
    [("user", "alice"), ("planet", "x", "--hard", "1T"), ("user", "alice", "--hard", "lots"), ("user", "alice", "--soft")],
)
def test_a_quota_without_a_limit_or_kind_is_wrong_use(wio: Wio, hub: RecordedHub, words: tuple[str, ...]) -> None:
    assert wio("quota", "set", *words).exit_code == 2
    assert hub.asked == []


def test_quotas_are_listed_with_how_they_stand(wio: Wio, hub: RecordedHub) -> None:
    over = msgspec.structs.replace(FULL, used=11 * 10**11, over_since=AT)
    below = Quota(6, QuotaKind.ROOT, "lab3/homes", None, 1 << 40, 312, None, ())
    hub.on("GET", "/quotas", [FULL, over, below])
    lines = wio("quota", "ls").stdout.splitlines()
    assert lines[1].endswith("over the soft limit")
    assert lines[2].endswith("over since 2026-03-02 10:42: nobody can add to it, only read and delete")
    assert lines[3].split() == ["root", "lab3/homes", "312", "B", "(0%)", "-", "1TiB", "below"]


def test_a_quota_is_removed_by_what_it_is_of(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/quotas", [FULL])
    hub.on("DELETE", "/quotas/5", None)
    said = wio("quota", "rm", "user", "alice", "--json")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["removed"]["id"] == 5
    assert wio("quota", "rm", "user", "bob").exit_code == 3


# ------------------------------------------------------------------------------------------------------ why, history


def test_why_says_the_verdict_the_chain_what_the_server_says_and_what_to_do(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/why", WHY)
    said = wio("why", "bob", "alice/scans/a")
    assert said.exit_code == 0
    assert hub.asked[0].query == "who=bob&path=alice%2Fscans%2Fa"
    assert said.stdout == (
        "denied. bob has no grant on alice/scans.\n"
        "  shared until 10:42:07; no public root.\n"
        "  The server agrees: 403 for this file\n"
        "  Ask alice: wio request alice/scans\n"
    )
    assert json.loads(wio("why", "bob", "alice/scans/a", "--json").stdout)["steps"][0]["what"] == "grant"


CHAIN = (
    WhyStep("person", True, "bob has an account"),
    WhyStep("workspace", True, "alice/scans lies in lab3/homes"),
    WhyStep("owner", False, "alice owns it"),
    WhyStep("grant", True, "shared with bob for read"),
    WhyStep("public-root", False, "no public root"),
    WhyStep("quota", True, "no quota is exceeded"),
    WhyStep("ceiling", False, "lab3's owner: not this bucket"),
    WhyStep("keys", False, "holds no key there now"),
    WhyStep("policy", False, "on lab3: nothing allows it"),
)


@pytest.mark.parametrize(
    ("allowed", "server_said", "reasons"),
    [
        (False, "", "shared with bob for read; no public root; lab3's owner: not this bucket; on lab3: nothing allows it."),
        (False, "403", "shared with bob for read; no public root; lab3's owner: not this bucket."),
        (True, "200", "shared with bob for read; lab3's owner: not this bucket."),
    ],
)
def test_why_gives_the_links_that_decide_and_all_of_them_when_asked(
    wio: Wio, hub: RecordedHub, *, allowed: bool, server_said: str, reasons: str
) -> None:
    hub.on("GET", "/why", msgspec.structs.replace(WHY, allowed=allowed, steps=CHAIN, server_said=server_said))
    assert wio("why", "bob", "p").stdout.splitlines()[1] == f"  {reasons}"
    lines = wio("why", "bob", "p", "--chain").stdout.splitlines()
    assert lines[1] == "  yes person: bob has an account"
    assert lines[3] == "  no  owner: alice owns it"
    assert len([line for line in lines if line.startswith(("  yes ", "  no  "))]) == len(CHAIN)


def test_a_server_that_disagrees_is_loud_and_exits_with_1(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/why", msgspec.structs.replace(WHY, agrees=False, server_said="200 for this file"))
    said = wio("why", "bob", "alice/scans/a")
    assert said.exit_code == 1
    assert "The server DISAGREES: 200 for this file" in said.stdout
    assert wio("why", "bob", "alice/scans/a", "--json").exit_code == 1


def test_why_allowed_over_quota(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/why", Why("bob", "p", True, Permission.TIDY, "bob is in @mri.", (), "", None))
    assert wio("why", "bob", "p").stdout == "allowed (read and delete: over quota). bob is in @mri.\n"


def test_who_could_reach_a_workspace_at_a_time(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/access", [Reacher("bob", "read", "@mri", AT, None), Reacher("alice", "owner", "owner", AT, AT + 1)])
    said = wio("access", "scans", "--at", "2026-03-01T00:00Z")
    assert hub.asked[0].query == "path=scans&at=1772323200000000"
    assert said.stdout.splitlines()[1].split() == ["bob", "read", "@mri", "2026-03-02", "10:42"]
    assert wio("access", "scans").exit_code == 0
    assert hub.asked[1].query == "path=scans"
    assert wio("access", "scans", "--at", "yesterday").exit_code == 2


def test_who_read_or_wrote(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/accesses", [AccessEntry(7, "bob", "alice/scans/a", "GetObject", AT, AT, 12, 2)], [])
    said = wio("accesses", "scans/", "--who", "bob", "--limit", "5")
    assert hub.asked[0].query == "path=scans%2F&who=bob&limit=5"
    assert said.stdout.splitlines()[1].split() == [
        "7", "2026-03-02", "10:42", "bob", "GetObject", "12", "2", "alice/scans/a",
    ]  # fmt: skip
    assert "Nothing" in wio("accesses", "scans/").stderr


def test_the_whole_audit_trail_goes_out_line_by_line_as_the_hub_wrote_it(wio: Wio, hub: RecordedHub) -> None:
    lines = b"".join(msgspec.json.encode(AuditEntry(n, AT, "alice", "share", "alice/ä", "x\n")) + b"\n" for n in range(3000))
    hub.on("GET", "/audit", lines)
    said = wio("audit", "--jsonl", "--workspace", "alice/scans")
    assert said.exit_code == 0
    assert said.stdout.encode() == lines
    assert hub.asked[0].query == "format=jsonl&workspace=alice%2Fscans"


def test_a_refusal_of_the_whole_audit_trail_is_a_sentence(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/audit", NoGrant("You may not."))
    said = wio("audit", "--jsonl")
    assert (said.exit_code, said.stdout, said.stderr) == (4, "", "wio: You may not.\n")


def test_the_audit_trail_is_checked(wio: Wio, hub: RecordedHub) -> None:
    whole, broken = AuditCheck(True, 12, None, 2, "ab12"), AuditCheck(False, 12, 7)
    hub.on("GET", "/audit/check", whole, broken, broken)
    said = wio("audit", "--check")
    assert said.exit_code == 0
    for text in ("12 lines, each as it was written", "2 lines of before", "ab12"):
        assert text in said.stdout
    said = wio("audit", "--check")
    assert said.exit_code == 1
    assert "Line 7" in said.stdout
    assert wio("audit", "--check", "--json").exit_code == 1


@pytest.mark.parametrize(
    "words", [("--check", "--limit", "5"), ("--jsonl", "--json"), ("--check", "--jsonl"), ("--limit", "0")]
)
def test_options_of_audit_that_do_not_go_together_are_wrong_use(wio: Wio, hub: RecordedHub, words: tuple[str, ...]) -> None:
    assert wio("audit", *words).exit_code == 2
    assert hub.asked == []


def test_names_that_others_chose_cannot_steer_the_terminal(wio: Wio, hub: RecordedHub) -> None:
    evil = "x\x1b[2J\u202e"
    hub.on("GET", "/groups", [msgspec.structs.replace(MRI, description=evil)])
    hub.on("GET", "/requests", [msgspec.structs.replace(ASKED, message=evil)])
    hub.on("GET", "/why", msgspec.structs.replace(WHY, because=evil, server_said=evil, todo=evil))
    hub.on("PATCH", "/workspaces/me/scans", msgspec.structs.replace(SCANS, description=evil))
    hub.on("DELETE", "/quotas/5", NotFound(evil))
    hub.on("GET", "/quotas", [msgspec.structs.replace(FULL, of=evil, caveats=(evil,))])
    for words in (
        ("group", "ls"), ("requests",), ("why", "bob", "p"), ("w", "describe", "scans", "t"), ("quota", "ls"),
    ):  # fmt: skip
        said = wio(*words)
        assert "\x1b" not in said.output, words
        assert "\u202e" not in said.output, words


# ---------------------------------------------------------------------------------------------------- what lies in files


def test_a_file_is_shown_with_everything_that_was_read_out_of_it(wio: Wio, hub: RecordedHub) -> None:
    values: dict[str, str | int | float | bool] = {"image.width": 4000, "image.alpha": True, "image.note": "a\x1b[2Jb"}
    tags = {"project": "fly"}
    hub.on(
        "GET", "/file", FileDetails("alice/scans/a.png", 2048, AT, "e1", "lab3", "image", values, tags, "some\n words", "cut")
    )
    shown = wio("file", "scans/a.png")
    assert shown.exit_code == 0, shown.output
    said = shown.stdout
    assert "alice/scans/a.png" in said
    assert "4000" in said
    assert "yes" in said
    assert "tag project" in said
    assert "some words" in said
    assert "cut" in said
    assert "\x1b[2J" not in said
    assert hub.asked[-1].query == "path=scans%2Fa.png"
    assert json.loads(wio("file", "scans/a.png", "--json").stdout)["values"]["image.width"] == 4000


def test_files_that_could_not_be_read_are_listed_with_the_reason(wio: Wio, hub: RecordedHub) -> None:
    hub.on("GET", "/unreadable", [Unreadable("lab3/homes", "alice/bad.png", "image", "It is cut off.")], [])
    listed = wio("node", "unreadable", "lab3/homes")
    assert listed.exit_code == 0, listed.output
    said = listed.stdout
    assert "alice/bad.png" in said
    assert "It is cut off." in said
    assert "could be" in wio("node", "unreadable", "lab3/homes").stderr
