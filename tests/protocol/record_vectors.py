"""Writes the bytes of every message, once for each protocol version: ``python -m tests.protocol.record_vectors``.

What has been recorded is never written again: a vector that no longer fits is a broken protocol, not an old vector. Add
messages for a new version below, and run it; it appends what is missing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from protocol.digest import combine, object_number, run_on
from protocol.errors import Problem
from protocol.fields import Fields, pack
from protocol.grants import Grant, GrantSet, Narrowing, Permission, Subject, SubjectKind, content_hash, sign_set
from protocol.identity import Assertion, JoinString, new_key, public_bytes, sign_assertion, sign_eviction
from protocol.messages import (
    PROTOCOL_VERSION,
    Access,
    Accesses,
    Ack,
    Challenge,
    Change,
    CheckRoot,
    Configure,
    Counted,
    Cursor,
    Digested,
    Digests,
    Done,
    Enrolment,
    Epochs,
    EpochState,
    Events,
    Evict,
    Explain,
    Explained,
    Failed,
    Finding,
    GiveUp,
    GrantsApplied,
    GrantsRefused,
    Health,
    Hello,
    IndexLevel,
    KeyRange,
    KeysOut,
    LinkSigned,
    Mint,
    Minted,
    Nak,
    OutUntil,
    PlaceWorkspace,
    ProbeLine,
    Progress,
    Proof,
    Recheck,
    Refusal,
    Refused,
    Report,
    RootActivity,
    RootConfig,
    RootState,
    Row,
    Scan,
    ScanState,
    SealedCredential,
    SetGrants,
    SignLink,
    Sum,
    Survey,
    Surveyed,
    Verified,
    Verify,
    Welcome,
    WireProof,
    Wishes,
)
from protocol.names import MAX_ID, Layout
from protocol.sealing import ClearCredential, Context, client_key, seal
from protocol.wire import encode
from tests.protocol.parties import HUB_KEY, JOIN_KEY, NODE_KEY, WISHES, Pair

FILE: Final = Path(__file__).with_name("vectors.json")
CLIENT_SEED: Final = b"\x04" * 32

H = bytes(range(32))
S = bytes(range(64))
BOB = Subject(SubjectKind.PERSON, 12, "bob")
EVERYONE = Subject(SubjectKind.EVERYONE, 0, "everyone")
LAST_COUNT = 2**63 - 1
LAST_SECOND = 7_258_118_400
PROBLEM = Problem("no-grant", "Bob has no grant on alice/scans.", "Ask alice.", retry=False, column=3)
ROOT = RootConfig(5, "data", "lab", "raw/", Layout.PREFIX, IndexLevel.METADATA, 500)
CURSOR = Cursor(3, 1000, H)
SET = GrantSet(
    7,
    BOB,
    4,
    (Grant(21, "lab", "raw/alice/scans/", Permission.READ, 1_800_000_000), Grant(0, "pub", "", Permission.MANAGE)),
    1_797_000_000,
    (31, 32),
)
LINK = Subject(SubjectKind.LINK, 41, "link 41 of bob")
FIELDS = Fields("image", {"image.width": 4000, "image.ratio": 1.5, "image.alpha": True}, {"project": "mri"}, "words", "")
PROOF = WireProof("GET lab/raw/alice/scans/a.txt", 403, 1_764_000_000_000_000, expected=True)

VERSION_1: Final[tuple[msgspec.Struct, ...]] = (
    Hello((1,), H, H[::-1]),
    Hello((1, 2, 300), H, H[::-1]),
    Challenge(1, H, H[::-1], S),
    Proof(S),
    Proof(S, Enrolment(H, S[::-1], Wishes("lab3", "minio"))),
    Welcome(7, "lab3", H, CURSOR),
    Welcome(MAX_ID, "lab3", H, Cursor(LAST_COUNT, 0, H), (EpochState(BOB, 4, H), EpochState(EVERYONE, 1, H))),
    Refused(PROBLEM),
    Refused(Problem("unknown-peer", "This hub does not know this node.")),
    SetGrants(1, 5000, sign_set(HUB_KEY, SET)),
    Mint(2, 10_000, BOB, 4, H, 3600),
    Mint(LAST_COUNT, 3_600_000, BOB, 4, H, 31_536_000, Narrowing((("lab", "raw/alice/scans/"), ("pub", "")), read_only=True)),
    Configure(3, 5000, 9, ()),
    Configure(3, 5000, 9, (ROOT, RootConfig(6, "whole", "pub", "", Layout.BUCKET, IndexLevel.LOCAL))),
    Ack(CURSOR),
    Nak(CURSOR, "Rows 1000 to 1200 are missing."),
    Scan(4, 5000, 5),
    CheckRoot(5, 5000, ROOT),
    PlaceWorkspace(6, 5000, 5, "alice/scans/"),
    sign_eviction(HUB_KEY, 7, 1_764_000_000),
    Evict(7, LAST_SECOND, S),
    Explain(7, 5000, BOB, 5, "alice/scans/ä.txt"),
    Report("0.1.0", "minio", "MinIO 2024-01-01", ("https://lab3.example:9000",), "us-east-1", Finding.YES, ()),
    Report(
        "0.1.0",
        "minio",
        "MinIO 2024-01-01",
        ("https://lab3.example:9000", "http://10.0.0.3:9000"),
        "us-east-1",
        Finding.UNKNOWN,
        (ProbeLine("live-policies", Finding.YES, "A changed policy holds at the next request."),),
        ("Nothing outside of bucket lab.",),
        900,
    ),
    GrantsApplied(1, BOB, 4, 1_764_000_000_000_000, 2, (PROOF,)),
    GrantsRefused(1, BOB, 4, PROBLEM),
    GrantsRefused(1, BOB, 4, PROBLEM, (Refusal(21, PROBLEM),)),
    Minted(2, SealedCredential(b"sealed", S, 1_764_003_600)),
    Events(3, 1000, (Row(Change.PUT, 5, "alice/scans/a.txt", 10, 1_764_000_000_000_000_001, "abc", 12),), H),
    Events(3, 1001, (Row(Change.DELETE, 5, "b"), Row(Change.PUT, 5, "日本/" + "x" * 1000, LAST_COUNT)), H),
    Progress(5, ScanState.RUNNING, 10, 1000, 1_764_000_000_000_000, 1_764_000_001_000_000),
    Progress(5, ScanState.DONE, 10, 1000, 0, 7_258_118_400_000_000, 1001, LAST_COUNT, None, 7),
    Progress(5, ScanState.FAILED, 0, 0, 0, 0, problem=PROBLEM),
    Health(1_764_000_000_000_000, 0, 0, paused=False),
    Health(1_764_000_000_000_000, 5, 6, paused=True, warnings=("The disk is nearly full.",)),
    Explained(7, 4, "wio-p-1f", 1),
    Explained(7, 4, "wio-p-1f", 1, PROOF),
    Accesses((Access(5, "alice/scans/a.txt", 12, "GetObject", 1, 2, 3, 1),)),
    Epochs(()),
    Epochs((EpochState(BOB, 4, H),), last=False),
    KeysOut(()),
    KeysOut((OutUntil(BOB, 1_764_003_600),)),
    Survey(8, 5000, RootConfig(6, "whole", "pub", "", Layout.PREFIX, IndexLevel.NAMES, 0, "22:00-06:00")),
    Verify(9, 3_600_000, 5),
    Digests(10, 5000, 5, (KeyRange("", "m"), KeyRange("m", None))),
    Recheck(11, 5000, 5, KeyRange("", None), ()),
    Recheck(11, 5000, 5, KeyRange("a", "b"), ("aä",)),
    GiveUp(11),
    Events(3, 1003, (Row(Change.FIELDS, 5, "a.png", 10, 1_764_000_000_000_000_001, "abc", 0, pack(FIELDS)),), H),
    Health(
        1_764_000_000_000_000,
        0,
        0,
        paused=False,
        roots=(RootState(5, RootActivity.WAITING, 1_764_000_000_000_000, 1_764_000_001_000_000, 3, 4, 5),),
    ),
    Surveyed(8, 0, 0, (), (), 0, 0),
    Surveyed(8, 3, 30, (Counted("nii.gz", 3, 30),), (Counted("a space at an end", 1, 0, ("a ",)),), 12, 34),
    Verified(
        9,
        Sum(1, 2, 3),
        Sum(1, 2, 3),
        Sum(1, 2, LAST_COUNT),
        3,
        1001,
        Counted("unknown", 0),
        Counted("gone", 1, 0, ("a",)),
        Counted("other", 0),
    ),
    Digested(10, 3, 1001, (Sum(1, 2, 3), Sum(0, 0, 0))),
    SignLink(12, 5000, LINK, 1, H, 86_400, "lab", "raw/alice/scans/ä.txt"),
    SignLink(12, 5000, LINK, 1, H, 604_800, "lab", "raw/alice/scans/b", put=True),
    LinkSigned(12, SealedCredential(b"sealed", S, 1_764_086_400)),
    Done(3),
    Failed(3, PROBLEM),
)
"""Each message in its shortest form and with everything set."""

MESSAGES: Final = {1: VERSION_1}


def plain(value: Any) -> Any:
    """Return a value as JSON holds it; bytes as base64."""
    return msgspec.json.decode(msgspec.json.encode(value))


def recorded(message: msgspec.Struct) -> dict[str, Any]:
    """Return the record of one message. ``fields`` are those of that version; later ones may add some, with defaults."""
    fields = {name: plain(getattr(message, name)) for name in message.__struct_fields__}
    return {"message": type(message).__name__, "fields": fields, "hex": encode(message).hex()}


def session() -> list[list[str]]:
    """Return a whole enrolment and one frame each way, as (who sends, hex); all keys and nonces are in ``parties``."""
    pair = Pair(join=(JOIN_KEY, WISHES)).open()
    pair.to_hub(pair.agent.send(Done(3)))
    pair.to_agent(pair.hub.send(Scan(4, 5000, 5)))
    return [[who, data.hex()] for who, data in pair.wire]


def signed() -> dict[str, Any]:
    """Return what outlives a session: signed, sealed and hashed things."""
    client = X25519PrivateKey.from_private_bytes(CLIENT_SEED)
    context = Context(7, 12, 99, client_key(client))
    clear = ClearCredential("AKIA", "secret", "token", 1_764_003_600, "https://lab3.example:9000", "us-east-1")
    sealed = seal(NODE_KEY, context, clear)
    rows = (Row(Change.PUT, 5, "a", 1, 2, "e"), Row(Change.DELETE, 5, "a"))
    number = object_number("alice/scans/ä.txt", 10, 1_764_000_000_000_000_001, "abc")
    return {
        "grant_set": encode(sign_set(HUB_KEY, SET)).hex(),
        "content_hash": content_hash(SET).hex(),
        "assertion": encode(sign_assertion(HUB_KEY, Assertion(7, 12, "bob", 1_764_000_000, 1_764_000_600))).hex(),
        "join_string": JoinString("https://hub.example:8443", public_bytes(HUB_KEY), b"\x03" * 32, 1_764_000_600).encode(),
        "running_hash": run_on(bytes(32), rows).hex(),
        "object_number": number,
        "combined": combine(0, added=(number, number)),
        "sealed": encode(sealed).hex(),
        "client_public": client_key(client).hex(),
        "node_public": public_bytes(new_key(b"\x02" * 32)).hex(),
    }


def main() -> None:
    """Append what is missing."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for version, messages in MESSAGES.items():
        entry = known.setdefault(str(version), {"messages": []})
        have = {record["hex"] for record in entry["messages"]}
        entry["messages"] += [r for r in map(recorded, messages) if r["hex"] not in have]
    newest = known[str(PROTOCOL_VERSION)]
    newest.setdefault("session", session())
    newest.setdefault("signed", signed())
    FILE.write_text(json.dumps(known, indent=1, ensure_ascii=True) + "\n")
    sys.stdout.write(f"{FILE.name}: {sum(len(entry['messages']) for entry in known.values())} messages\n")


if __name__ == "__main__":
    main()
