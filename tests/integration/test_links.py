"""Links to single files, opened over plain HTTP by somebody who has nothing of wio: no account, no key, no code."""

from __future__ import annotations

import re
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest

from bench.rig import Rig, fetch_key, s3
from deploy.federation import BIN, Said, run
from deploy.running import until
from protocol.api import NewRoot, RootKind
from protocol.errors import BadLifetime, NoGrant, NotFound, OverCeiling, UnknownWorkspace, WioError
from protocol.grants import Permission, ReceiptState
from wio.client import Client
from wio.links import Made, make
from wio.pins import Pins

pytestmark = pytest.mark.timeout(300)
OK = 200
FORBIDDEN = 403


def http(url: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    """Make one request as anybody would."""
    asked = urllib.request.Request(url, data=body, method=method)  # noqa: S310 - http, on loopback
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def status(url: str, method: str = "GET", body: bytes | None = None) -> int:
    return http(url, method, body)[0]


class Scene:
    """Alice owns a workspace with a file; bob may do something in it, and links are made."""

    def __init__(self, rig: Rig, name: str, permission: Permission | None = Permission.READ) -> None:
        self.rig, self.name = rig, name
        self.alice, self.bob = rig.alice, rig.bob
        self.place = rig.alice.create_workspace(name)
        self.put("a b+c (1) ü~.txt", b"content")
        self.put("other.txt", b"other")
        if permission is not None:
            rig.alice.share(name, "bob", permission)

    def put(self, key: str, body: bytes) -> None:
        self.rig.root_client().put_object(Bucket=self.place.bucket, Key=self.place.prefix + key, Body=body)

    def held(self, key: str) -> bytes:
        found = self.rig.root_client().get_object(Bucket=self.place.bucket, Key=self.place.prefix + key)
        body: bytes = found["Body"].read()
        return body

    def link(self, who: Client, key: str, *, life_s: int = 3600, put: bool = False) -> Made:
        pins = Pins(self.rig.federation.folder / "pins.json", self.rig.federation.hub.url)
        path = f"alice/{self.name}/{key}"
        return make(who.make_link, pins, path, life_s=life_s, put=put, clock=time.time)

    def url(self, who: Client, key: str, *, life_s: int = 3600, put: bool = False) -> str:
        return self.link(who, key, life_s=life_s, put=put).url


FILE = "a b+c (1) ü~.txt"


def test_a_link_opens_this_file_with_this_method_and_nothing_else(rig: Rig) -> None:
    scene = Scene(rig, "one")
    said = rig.federation.person("bob").wio("presign", f"alice/one/{FILE}", "--expires", "1h").good()
    [url] = said.out.splitlines()
    assert http(url) == (OK, b"content")
    assert status(url, "PUT", b"overwritten") == FORBIDDEN
    assert status(url, "DELETE") == FORBIDDEN
    assert status(url.replace(urllib.parse.quote(FILE), "other.txt")) == FORBIDDEN
    assert status(url.partition("?")[0]) == FORBIDDEN
    assert status(f"{url}&response-content-type=text/html") == FORBIDDEN
    assert status(re.sub("X-Amz-Expires=[0-9]+", "X-Amz-Expires=604800", url)) == FORBIDDEN
    assert status(re.sub(".$", lambda last: "0" if last[0] != "0" else "1", url)) == FORBIDDEN
    assert scene.held(FILE) == b"content"


def test_a_link_for_uploading_takes_the_file_and_shows_nothing(rig: Rig) -> None:
    scene = Scene(rig, "inbox", Permission.WRITE)
    url = scene.url(scene.bob, "new/deep/er.bin", put=True, life_s=1800)
    assert status(url, "PUT", b"uploaded") == OK
    assert scene.held("new/deep/er.bin") == b"uploaded"
    assert status(url) == FORBIDDEN
    assert status(url.replace("er.bin", "else.bin"), "PUT", b"x") == FORBIDDEN


def test_who_may_only_drop_makes_links_into_their_own_folder(rig: Rig) -> None:
    scene = Scene(rig, "drops", Permission.DROP)
    url = scene.url(scene.bob, "new.bin", put=True)
    assert status(url, "PUT", b"dropped") == OK
    assert scene.held("bob/new.bin") == b"dropped"
    with pytest.raises(NoGrant):
        scene.url(scene.bob, "other.txt")
    reader = Scene(rig, "readonly", Permission.READ)
    with pytest.raises(NoGrant):
        reader.url(reader.bob, "x", put=True)


def test_a_link_that_is_ended_is_dead_at_once_and_nothing_else_is(rig: Rig) -> None:
    scene = Scene(rig, "ended")
    first, second = scene.link(scene.bob, FILE), scene.link(scene.bob, FILE)
    alices = scene.url(scene.alice, FILE)
    key, _ = fetch_key(rig.bob, "alice/ended")
    assert {status(first.url), status(second.url), status(alices)} == {OK}
    receipt = scene.bob.revoke_link(first.link.id).receipt
    assert status(first.url) == FORBIDDEN
    assert (receipt.state, receipt.keys_out) == (ReceiptState.ENFORCED, 1)
    assert [proof.status for proof in receipt.proofs] == [FORBIDDEN]
    assert {status(second.url), status(alices)} == {OK}
    place = {"Bucket": scene.place.bucket, "Key": scene.place.prefix + FILE}
    assert s3(key).get_object(**place)["Body"].read() == b"content"
    person = rig.federation.person("bob")
    again = person.wio("links", "rm", str(first.link.id)).good()
    assert "dead" in again.out
    person.wio("links", "rm", "--all").good()
    assert status(second.url) == FORBIDDEN
    assert status(alices) == OK
    assert person.wio("links", "--json").good().json == []


def test_who_manages_the_workspace_sees_everybodys_links_and_may_end_them(rig: Rig) -> None:
    scene = Scene(rig, "watched")
    made = scene.link(scene.bob, FILE)
    [seen] = scene.alice.links("watched")
    assert (seen.id, seen.by, seen.path) == (made.link.id, "bob", f"alice/watched/{FILE}")
    assert scene.alice.links("watched/elsewhere/") == []
    assert [one.id for one in scene.bob.links("alice/watched") if one.by == "bob"] == [made.link.id]
    with closing(Client(rig.federation.hub.url, rig.federation.person("carol").token)) as carol:
        with pytest.raises(UnknownWorkspace):
            carol.links("alice/watched")
        with pytest.raises(NotFound):
            carol.revoke_link(made.link.id)
    assert status(made.url) == OK
    scene.alice.revoke_link(made.link.id)
    assert status(made.url) == FORBIDDEN


def test_a_link_dies_with_its_makers_share_and_stays_dead(rig: Rig) -> None:
    scene = Scene(rig, "scans")
    bobs, alices = scene.url(scene.bob, FILE), scene.url(scene.alice, FILE)
    said = rig.federation.people["alice"].wio("unshare", "scans", "bob").good()
    assert status(bobs) == FORBIDDEN
    assert said.out.splitlines()[-1] == "1 link of bob's on scans is dead."
    assert status(alices) == OK
    scene.alice.share("scans", "bob", Permission.READ)
    assert status(bobs) == FORBIDDEN
    lines = {(line.action, line.actor) for line in scene.alice.audit(workspace="alice/scans")}
    assert {("link.make", "bob"), ("link.make", "alice"), ("link.revoke", "hub")} <= lines


def test_a_link_dies_with_the_group_with_everyone_and_with_the_workspace(rig: Rig) -> None:
    scene = Scene(rig, "shared", None)
    alice = scene.alice
    alice.create_group("team")
    alice.add_member("team", "bob")
    alice.share("shared", "@team", Permission.READ)
    by_group = scene.url(scene.bob, FILE)
    assert status(by_group) == OK
    alice.remove_member("team", "bob")
    assert status(by_group) == FORBIDDEN
    until("it is dead for good", lambda: scene.bob.links() == [], seconds=10)
    alice.share("shared", "public", Permission.READ)
    by_all = scene.url(scene.bob, FILE)
    assert status(by_all) == OK
    assert len(alice.unshare("shared", "public").links) == 1
    assert status(by_all) == FORBIDDEN
    own = scene.url(alice, FILE)
    assert status(own) == OK
    rig.alice.delete_workspace("shared")
    assert status(own) == FORBIDDEN


def test_handing_over_and_archiving_end_what_their_links_lean_on(rig: Rig) -> None:
    scene = Scene(rig, "given", None)
    reads, puts = scene.url(scene.alice, FILE), scene.url(scene.alice, "new", put=True)
    assert (status(reads), status(puts, "PUT", b"x")) == (OK, OK)
    rig.alice.change_workspace("given", archived=True)
    assert (status(reads), status(puts, "PUT", b"y")) == (OK, FORBIDDEN)
    rig.alice.change_workspace("given", archived=False)
    rig.alice.hand_over("given", "bob")
    assert (status(reads), status(puts, "PUT", b"z")) == (FORBIDDEN, FORBIDDEN)


def test_a_link_ends_by_itself(rig: Rig) -> None:
    scene = Scene(rig, "short")
    url = scene.url(scene.bob, FILE, life_s=3)
    assert status(url) == OK
    until("the link is over", lambda: status(url) == FORBIDDEN, seconds=10)


def test_a_disabled_person_has_no_links(rig: Rig) -> None:
    scene = Scene(rig, "ousted", None)
    dave = rig.federation.person("dave")
    rig.alice.share("ousted", "dave", Permission.READ)
    with closing(Client(rig.federation.hub.url, dave.token)) as client:
        url = scene.url(client, FILE)
    assert status(url) == OK
    _hub(rig, "user", "disable", "dave")
    until("dave's link is dead", lambda: status(url) == FORBIDDEN, seconds=10)
    _hub(rig, "user", "enable", "dave")
    assert status(url) == FORBIDDEN


def _hub(rig: Rig, *words: str) -> Said:
    return run([BIN / "wio-hub", *words], rig.federation.hub.settings).good()


def test_the_owner_of_the_node_decides_how_long_links_live(rig: Rig) -> None:
    scene = Scene(rig, "limits")
    agent = rig.federation.agents["lab3"]
    file = agent.state / "ceiling.toml"
    before = file.read_text()
    living = scene.url(scene.bob, FILE)

    def refusal(life_s: int) -> type[WioError] | None:
        try:
            scene.url(scene.bob, FILE, life_s=life_s)
        except WioError as error:
            return type(error)
        return None

    try:
        file.write_text(before.replace('longest_link = "7d"', 'longest_link = "1h"'))
        until("the hub knows", lambda: refusal(7200) is BadLifetime, seconds=15)
        assert status(scene.url(scene.bob, FILE)) == OK
        assert status(living) == OK
        file.write_text(before.replace('longest_link = "7d"', 'longest_link = "0"'))
        until("links are dead", lambda: status(living) == FORBIDDEN, seconds=15)
        until("the hub knows", lambda: refusal(60) is OverCeiling, seconds=15)
    finally:
        file.write_text(before)
        until("as before", lambda: refusal(7200) is None, seconds=15)


def test_pausing_the_node_shuts_links_too(rig: Rig) -> None:
    scene = Scene(rig, "paused")
    url = scene.url(scene.bob, FILE)
    agent = rig.federation.agents["lab3"]
    agent.ask("pause").good()
    try:
        assert status(url) == FORBIDDEN
    finally:
        agent.ask("resume").good()
    assert status(url) == OK


def test_a_link_outlives_the_hubs_absence_and_the_agents_restart_but_not_its_lost_state(rig: Rig) -> None:
    scene = Scene(rig, "lasting")
    url = scene.url(scene.bob, FILE)
    agent, hub = rig.federation.agents["lab3"], rig.federation.hub
    hub.stop()
    assert status(url) == OK
    agent.stop()
    assert status(url) == OK
    agent.start()
    hub.start()
    owner = rig.federation.people["alice"]
    rig.federation.wait_online("lab3", owner)
    assert status(url) == OK
    [seen] = scene.bob.links("alice/lasting")
    agent.stop()
    for one in agent.state.glob("grants.sqlite*"):
        one.unlink()
    agent.start()
    rig.federation.wait_online("lab3", owner)
    assert status(url) == FORBIDDEN
    again = scene.url(scene.bob, FILE)
    assert status(again) == OK
    assert scene.bob.revoke_link(seen.id).receipt.state is ReceiptState.ENFORCED


def test_links_on_a_plain_directory_are_the_same(rig: Rig, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "work").mkdir(parents=True)
    (tree / "work" / FILE).write_bytes(b"content")
    rig.federation.directory("nas", rig.federation.people["alice"], tree, "--bucket", "tree")
    private = NewRoot("nas", "all", RootKind.UNMANAGED_PRIVATE, "tree", accept_visible_names=True)
    rig.alice.create_root(private)
    rig.alice.create_workspace("work", root="nas/all", folder="work/")
    rig.alice.share("work", "bob", Permission.WRITE)
    pins = Pins(rig.federation.folder / "pins.json", rig.federation.hub.url)

    def link(path: str, *, put: bool = False) -> Made:
        return make(rig.bob.make_link, pins, f"alice/work/{path}", life_s=600, put=put, clock=time.time)

    reads, again, puts = link(FILE), link(FILE), link("new.txt", put=True)
    assert http(reads.url) == (OK, b"content")
    assert status(puts.url, "PUT", b"uploaded") == OK
    assert (tree / "work" / "new.txt").read_bytes() == b"uploaded"
    assert status(reads.url, "DELETE") == FORBIDDEN
    assert status(reads.url.replace(urllib.parse.quote(FILE), "new.txt")) == FORBIDDEN
    assert rig.bob.revoke_link(reads.link.id).receipt.state is ReceiptState.ENFORCED
    assert (status(reads.url), status(again.url)) == (FORBIDDEN, OK)
    assert len(rig.alice.unshare("work", "bob").links) == 2
    assert (status(again.url), status(puts.url, "PUT", b"x")) == (FORBIDDEN, FORBIDDEN)


def test_neither_the_hubs_database_nor_any_log_holds_a_link(rig: Rig) -> None:
    scene = Scene(rig, "secret")
    url = scene.url(scene.bob, FILE)
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query))
    secrets = [query["X-Amz-Signature"], query["X-Amz-Security-Token"][:60], "X-Amz-Signature"]
    assert status(url) == OK
    federation = rig.federation
    with closing(sqlite3.connect(f"file:{federation.hub.data / 'hub.sqlite'}?mode=ro", uri=True)) as connection:
        dump = "\n".join(connection.iterdump())
    assert "link.make" in dump
    files = [federation.hub.data.with_name("hub.log"), federation.agents["lab3"].state.with_name("agent-lab3.log")]
    files += [path for path in federation.hub.data.rglob("*") if path.is_file()]
    files += [path for path in federation.agents["lab3"].state.rglob("*") if path.is_file()]
    for secret in secrets:
        assert secret not in dump
        assert [path for path in files if secret.encode() in Path(path).read_bytes()] == []
