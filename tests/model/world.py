"""The real thing beside the model: plays steps on a real hub, agent and MinIO, and after each one tries real keys.

Nobody may reach more than the model allows, from the moment on that a step has returned; where a step says that it takes effect
later (a quota, the owner's file, a part that is away), and for what is given, within a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.rig import NODE, Rig
from deploy.federation import PASSWORD, Federation, Hub, run
from deploy.running import until
from protocol.api import NewCredentials, NewRoot, NodeCredential, NodeState, QuotaKind, RootKind, Share
from protocol.errors import (
    NodeOffline,
    NotAllowed,
    NotFound,
    OverCeiling,
    OverQuota,
    Pending,
    Unreachable,
    WioError,
)
from protocol.grants import Permission, Receipt, ReceiptState, SubjectKind
from protocol.identity import from_text, to_text
from protocol.messages import SealedCredential
from protocol.names import Layout
from protocol.sealing import Context, client_key, open_sealed
from spoke_agent.control import NoneRuns, ask_running
from spoke_agent.owner import Ask, What
from tests.model.probing import MARKER, Key, NotReady, Prober, Try
from tests.model.reference import DROP, NOTHING, READ, WRITE, Given, Op, Place, Quota, exceeded
from tests.model.state import ADMIN, GROUPS, OWNER, PEOPLE, ROOTS, State
from tests.model.steps import KEYS, Step
from wio.client import Client

LATE_S = 15.0
"""How long what takes effect later may take."""
BACK_S = 30.0
"""How long all may take after a part was away."""
GIVEN_S = 5.0
"""How long it may take until what was given can be used."""
ENDS_S = 1.0
"""How long after its end a share may go on: it ends to the second."""
KEY_S = 43_200
BESIDE = 16
"""Tries of other people and places beside what a step was about."""
ANY = frozenset(Op)
READING = frozenset({Op.GET, Op.LIST})


class Wrong(AssertionError):
    """The real thing did not do what the model says."""


@dataclass
class Figures:
    """What came of a run."""

    steps: int = 0
    tries: int = 0
    keys: int = 0
    seconds: float = 0.0
    by_step: dict[str, int] = field(default_factory=dict)
    latest: dict[str, float] = field(default_factory=dict)
    """The longest that anything took to be right, by the kind of the step before."""


def _shared_groups_from_two(folder: Path) -> list[str]:
    """Return a command that runs the hub where groups of two living members get a set of their own already, not of 50."""
    spec = importlib.util.find_spec("hub.db.groups")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text()
    assert source.count("LARGE: Final = 50\n") == 1
    copy = folder / "groups_of_two.py"
    copy.write_text(source.replace("LARGE: Final = 50\n", "LARGE: Final = 1\n"))
    launch = (
        "import importlib.util, sys, hub.db\n"
        f"spec = importlib.util.spec_from_file_location('hub.db.groups', {str(copy)!r})\n"
        "hub.db.groups = sys.modules['hub.db.groups'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(hub.db.groups)\n"
        "from hub.cli import main\n"
        "main()\n"
    )
    return [sys.executable, "-c", launch, "serve"]


class World:
    """One federation and its model. Use it in a ``with``."""

    def __init__(self, folder: Path, *, chance: random.Random, shared_groups: bool = False, all_of_it: bool = False) -> None:
        self.state = State()
        self.figures = Figures()
        self._chance = chance
        self._all = all_of_it
        self._federation = Federation(folder)
        hub = self._federation.hub
        if shared_groups:
            hub.command = _shared_groups_from_two(folder)
        self._clients: dict[str, Client] = {}
        self._keys: dict[str, list[Key]] = {one: [] for one in PEOPLE}
        self._made = 0
        self._focus: set[Place] = set()
        self._late = ""
        self._unseen = False
        """Whether something was away since the quotas were last looked at."""
        self._rig: Rig | None = None
        self._quota_ids: dict[tuple[str, object], int] = {}
        self._fills = itertools.count()
        self._hub = hub

    def __enter__(self) -> Self:
        hub: Hub = self._hub
        email = f"{ADMIN}@lab.example"
        make = [*hub.command[:-1], "user", "create", email, ADMIN, "--admin", "--password-stdin"]
        run(make, hub.settings, stdin=PASSWORD + "\n").good()
        self._federation.__enter__()
        try:
            self._set_up(email)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients.values():
            client.close()
        if self._rig is not None:
            self._rig.close()
            self._prober.close()
        self._federation.stop()

    @property
    def rig(self) -> Rig:
        assert self._rig is not None
        return self._rig

    def _set_up(self, email: str) -> None:
        hub = self._hub.url
        self._rig = Rig(self._federation)
        self._root_s3 = self._rig.root_client()
        self._prober = Prober(self._rig.server.host)
        for name in PEOPLE:
            self._clients[name] = Client(hub, self._token(name))
        with Client(hub) as nobody:
            self._clients[ADMIN] = Client(hub, nobody.login(email, PASSWORD).token)
        alice = self._clients[OWNER]
        kinds = {"open": RootKind.PUBLIC, "lab": RootKind.UNMANAGED_PRIVATE}
        for name, kind in kinds.items():
            root = ROOTS[name]
            self._root_s3.create_bucket(Bucket=root.bucket)
            layout = Layout.PREFIX
            alice.create_root(NewRoot(NODE, name, kind, root.bucket, root.prefix, layout=layout, accept_visible_names=True))
        for name in ("homes", "open"):
            alice.change_root(NODE, name, creators=("public",))
        for group in GROUPS:
            self._play({"do": "group", "group": group, "there": True})
        for by in PEOPLE:
            self._play({"do": "create", "by": by, "name": "a", "root": "homes", "public": False})
            self._play({"do": "key", "by": by, "on": self.state.made - 1, "kind": "whole"})
        self._play({"do": "create", "by": OWNER, "name": "old", "root": "lab", "folder": "old", "public": False})
        self._play({"do": "create", "by": "bob", "name": "b", "root": "open", "public": False})
        self._focus = set(self.state.places.values())
        self._check()

    def _token(self, name: str) -> str:
        if name in self._federation.people:
            return self._federation.person(name).token
        with Client(self._hub.url) as nobody:
            return nobody.register(f"{name}@lab.example", name, PASSWORD).token

    # ------------------------------------------------------------------------------------------ one step

    def play(self, step: Step) -> bool:
        """Play a step, then try keys; False where it makes no sense now. Raises Wrong."""
        self._let_end()
        if not self.state.sensible(step):
            return False
        began = time.monotonic()
        self._focus, self._late = set(), ""
        self.state.outage_steps = 0 if self._calm() else self.state.outage_steps + 1
        self._play(step)
        self._check()
        self.figures.steps += 1
        self.figures.by_step[step["do"]] = self.figures.by_step.get(step["do"], 0) + 1
        self.figures.tries = self._prober.tried
        self.figures.seconds += time.monotonic() - began
        return True

    def _calm(self) -> bool:
        state = self.state
        return state.whole and not state.paused and not state.read_only

    def _let_end(self) -> None:
        """Where a share is about to end, wait until it has: then there is no doubt what is right."""
        for end in list(self.state.soonest(time.time())):
            if -0.05 < end - time.time() < 0.5:
                until("the end of a share", lambda end=end: time.time() > end + 0.05)

    def _play(self, step: Step) -> None:
        number = step.get("on")
        if isinstance(number, int) and not isinstance(number, bool) and number in self.state.facts.workspaces:
            self._focus.add(self.state.facts.workspaces[number].place)
        getattr(self, f"_do_{step['do']}")(step)

    def _called(self, number: int) -> str:
        return self.state.facts.workspaces[number].called

    def _receipts(self, receipts: Iterable[Receipt]) -> None:
        """See that receipts say what can be, and note what follows: with everything there, all is enforced by now."""
        states = {one.state for one in receipts}
        if self.state.ruled_read_only and states & {ReceiptState.REFUSED}:
            self._late = "refused"
        elif self.state.whole and states - {ReceiptState.ENFORCED}:
            raise Wrong(f"Not enforced, though every part is there: {[one for one in receipts if one.state != 'enforced']}")
        if self.state.agent_up:
            return
        now = time.time()
        for one in receipts:
            if one.state is ReceiptState.ENFORCED and one.subject.kind is SubjectKind.PERSON:
                for place in self._focus:
                    more = self.state.opens(one.subject.name, place, now) - self.state.wanted(one.subject.name, place, now)
                    if more and self._keys.get(one.subject.name):
                        raise Wrong(f"Said to be enforced for {one.subject.name}, whose key still does {set(more)} at {place}")

    # ------------------------------------------------------------------------------------------ sharing

    def _do_share(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        ends = None
        if "for_s" in step:
            ends = float(int(time.time()) + 1 + step["for_s"])
        until_us = None if ends is None else int(ends * 1_000_000)
        permission = Permission(step["permission"])
        change = self._clients[step["by"]].share(one.called, step["with"], permission, until=until_us)
        self._receipts(change.receipts)
        if change.after == permission:
            one.shares[step["with"]] = Given(step["permission"], ends)
        elif not self.state.ruled_read_only:
            raise Wrong(f"Not shared: {change}")

    def _do_unshare(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        change = self._clients[step["by"]].unshare(one.called, step["with"])
        given = one.shares.pop(step["with"])
        if change.before != given.permission or change.after is not None:
            raise Wrong(f"{given} was to be taken back, and: {change}")
        self._receipts(change.receipts)

    def _do_member(self, step: Step) -> None:
        group, who = step["group"], step["who"]
        members = self.state.facts.groups[group]
        owner = self._clients[GROUPS[group]]
        if step["in"]:
            members.add(who)
            change = owner.add_member(group, who)
        else:
            members.discard(who)
            change = owner.remove_member(group, who)
        self._focus |= {one.place for one in self.state.facts.workspaces.values() if f"@{group}" in one.shares}
        self._receipts(change.receipts)

    def _do_group(self, step: Step) -> None:
        group = step["group"]
        owner = self._clients[GROUPS[group]]
        if step["there"]:
            owner.create_group(group)
            self.state.facts.groups[group] = {GROUPS[group]}
            return
        self._focus |= {one.place for one in self.state.facts.workspaces.values() if f"@{group}" in one.shares}
        change = owner.delete_group(group)
        self.state.delete_group(group)
        self._receipts(change.receipts)

    # ------------------------------------------------------------------------------------------ workspaces

    def _do_create(self, step: Step) -> None:
        state, client = self.state, self._clients[step["by"]]
        try:
            made = client.create_workspace(
                step["name"], root=f"{NODE}/{step['root']}", public=step["public"], folder=step.get("folder")
            )
        except WioError as error:
            if isinstance(error, OverCeiling) and state.ruled_read_only:
                return
            if isinstance(error, Unreachable | Pending) and not state.whole:
                return
            raise
        if not state.connected:
            raise Wrong(f"Made while its node is away: {made}")
        number = state.create(step)
        place = state.facts.workspaces[number].place
        if (made.bucket, made.prefix) != (place.bucket, place.prefix):
            raise Wrong(f"{made.bucket}/{made.prefix} is not {place}")
        self._focus.add(place)
        if state.server_up and MARKER not in state.sizes[place]:
            self._root_s3.put_object(Bucket=place.bucket, Key=place.prefix + MARKER, Body=b"marker")
            state.sizes[place][MARKER] = len(b"marker")
        self._settle_quotas()

    def _do_rename(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        self._clients[one.owner].change_workspace(one.called, name=step["name"])
        one.name = step["name"]

    def _do_describe(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        self._clients[step["by"]].change_workspace(one.called, description=step["as"])
        one.described = bool(step["as"])

    def _do_archive(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        changed = self._clients[step["by"]].change_workspace(one.called, archived=step["archived"])
        one.archived = step["archived"]
        self._receipts(changed.receipts)

    def _do_hand_over(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        keep = None if step["keep"] is None else Permission(step["keep"])
        changed = self._clients[one.owner].hand_over(one.called, step["to"], keep=keep)
        self.state.hand_over(step["on"], step["to"], step["keep"])
        self._receipts(changed.receipts)
        self._settle_quotas()

    def _do_delete(self, step: Step) -> None:
        one = self.state.facts.workspaces[step["on"]]
        ended = self._clients[one.owner].delete_workspace(one.called)
        self._quota_ids.pop(("workspace", step["on"]), None)
        self.state.delete(step["on"])
        self._receipts(ended.receipts)
        self._settle_quotas()

    # ------------------------------------------------------------------------------------------ requests

    def _do_request(self, step: Step) -> None:
        self._clients[step["by"]].request_access(self._called(step["on"]), Permission(step["permission"]))
        self.state.requests[step["by"], step["on"]] = step["permission"]

    def _do_answer(self, step: Step) -> None:
        one, key = self.state.facts.workspaces[step["on"]], (step["who"], step["on"])
        client, wanted = self._clients[step["by"]], self.state.requests[key]
        [found] = [
            asked
            for asked in client.requests()
            if (asked.who, asked.workspace) == (step["who"], one.called) and asked.granted is None
        ]
        if found.permission != wanted:
            raise Wrong(f"{found} is not what was asked for: {wanted}")
        try:
            client.answer(found.id, step["yes"])
        except OverCeiling:
            if not self.state.ruled_read_only:
                raise
            self._late = "refused"
            return
        del self.state.requests[key]
        given = one.shares.get(step["who"])
        enough = given is not None and given.lives(time.time()) and _covers(given.permission, wanted)
        if step["yes"] and not enough:
            one.shares[step["who"]] = Given(wanted)

    # ------------------------------------------------------------------------------------------ quotas

    def _do_quota(self, step: Step) -> None:
        key = self.state.quota_key(step)
        client = self._clients[ADMIN if step["kind"] == "user" else OWNER]
        made = client.set_quota(QuotaKind(step["kind"]), self._of(key), hard=step["hard"])
        self.state.facts.quotas[key] = Quota(*key, step["hard"])
        self._quota_ids[key] = made.id
        self._focus |= set(self.state.places.values())
        self._late = "quota"
        self._settle_quotas()

    def _do_unquota(self, step: Step) -> None:
        key = list(self.state.facts.quotas)[step["which"]]
        client = self._clients[ADMIN if key[0] == "user" else OWNER]
        client.delete_quota(self._quota_ids.pop(key))
        del self.state.facts.quotas[key]
        self._focus |= set(self.state.places.values())
        self._late = "quota"

    def _of(self, key: tuple[str, Any]) -> str:
        kind, target = key
        match kind:
            case "user":
                return str(target)
            case "user-root":
                return f"{target[0]}@{NODE}/{target[1]}"
            case "root":
                return f"{NODE}/{target}"
            case _:
                return self._called(target)

    def _do_fill(self, step: Step) -> None:
        place = self.state.facts.workspaces[step["on"]].place
        name = f"fill-{next(self._fills)}"
        self._root_s3.put_object(Bucket=place.bucket, Key=place.prefix + name, Body=b"x" * step["bytes"])
        self.state.sizes[place][name] = step["bytes"]
        self._settle_quotas()

    def _do_clear(self, step: Step) -> None:
        place = self.state.facts.workspaces[step["on"]].place
        files = self.state.sizes[place]
        for name in [name for name in files if name != MARKER]:
            self._root_s3.delete_object(Bucket=place.bucket, Key=place.prefix + name)
            del files[name]
        self._settle_quotas()

    def _settle_quotas(self) -> None:
        """Wait until the hub counts what is stored, and see that each quota stands as it must."""
        state = self.state
        if not state.facts.quotas or not state.whole:
            return
        wanted = {self._quota_ids[key]: quota for key, quota in state.facts.quotas.items()}
        last: list[Any] = []

        def right() -> bool:
            last[:] = [one for one in self._clients[ADMIN].quotas() if one.id in wanted]
            return len(last) == len(wanted) and all(
                one.used == state.used(wanted[one.id]) and (one.over_since is not None) in self._may_be_over(wanted[one.id])
                for one in last
            )

        began = time.monotonic()
        try:
            until("quotas", right, seconds=LATE_S)
        except TimeoutError:
            expected = {self._of(key): (state.used(one), self._may_be_over(one)) for key, one in state.facts.quotas.items()}
            raise Wrong(f"Quotas stand as {last}; expected (used, over) {expected}") from None
        self._took("quota counted", began)
        for one in last:
            over = one.over_since is not None
            if over != wanted[one.id].over:
                wanted[one.id].over = over
                self._late = "quota"
                self._focus |= set(state.places.values())

    def _may_be_over(self, quota: Quota) -> set[bool]:
        """Say how a quota may stand. While something was away, it is not known which totals were seen on the way."""
        used = self.state.used(quota)
        if self._unseen:
            return {exceeded(used, quota.hard, before=before) for before in (False, True)}
        return {exceeded(used, quota.hard, before=quota.over)}

    # ------------------------------------------------------------------------------------------ keys

    def _do_key(self, step: Step) -> None:
        key = self._fetch(step["by"], step["on"], step["kind"])
        if key is None:
            return
        living = [one for one in self._keys[key.who] if one.expires > time.time() + 60]
        self._keys[key.who] = [*living, key] if len(living) < KEYS else living
        self._sure(self._tries([key], self.state.places.values()), "a new key")

    def _fetch(self, who: str, number: int, kind: str) -> Key | None:
        """Ask for a key as any client does, and see that it is given exactly where the model says. None: rightly refused."""
        state, one = self.state, self.state.facts.workspaces[number]
        held = list(state.facts.held(who, number, time.time()))
        reading = kind == "reading"
        refused = self._refusal(held, number, reading=reading)
        private = X25519PrivateKey.generate()
        asked = NewCredentials(to_text(client_key(private)), (one.called,), KEY_S, reading, kind == "narrow")
        try:
            [issued] = self._clients[who].credentials(asked).keys
        except WioError as error:
            if refused is not None and isinstance(error, refused):
                return None
            raise Wrong(f"{who} gets no key for {one.called} ({held}), which should be {refused}: {error!r}") from error
        if refused is not None and refused is not WioError:
            raise Wrong(f"{who} got a key for {one.called} ({held}) and should have been refused: {refused.__name__}")
        self.figures.keys += 1
        return self._opened(private, issued, who, one.place if kind == "narrow" else None, reading=reading)

    def _refusal(self, held: Sequence[str], number: int, *, reading: bool) -> type[WioError] | None:
        """Say how a key for somebody who holds this in a workspace has to be refused; None: it must be given."""
        state = self.state
        reads = any(permission != DROP for permission in held)
        drops = bool(held) and not reads and not reading and not state.facts.workspaces[number].archived
        conditions: list[tuple[bool, type[WioError]]] = [
            (not held, NotFound),
            (not reads and not drops, NotAllowed),
            (not reads and state.facts.full(number), OverQuota),
            (not state.connected, NodeOffline),
            (not state.server_up, WioError),
            (state.paused, OverCeiling),
            (not reads and state.ruled_read_only, NotAllowed),
        ]
        return next((error for holds, error in conditions if holds), None)

    def _opened(
        self, private: X25519PrivateKey, issued: NodeCredential, who: str, within: Place | None, *, reading: bool
    ) -> Key:
        context = Context(issued.node_id, issued.subject, issued.request, client_key(private))
        sealed = SealedCredential(from_text(issued.sealed), from_text(issued.signature), issued.expires_at)
        clear = open_sealed(private, from_text(issued.node_key), context, sealed)
        self._made += 1
        kind = "reading" if reading else "narrow" if within is not None else "whole"
        return Key(
            who,
            f"{self._made} {kind}",
            clear.access_key,
            clear.secret_key,
            clear.session_token,
            issued.expires_at,
            reading,
            within,
        )

    # ------------------------------------------------------------------------------------------ those without a right

    def _do_intrude(self, step: Step) -> None:
        called, client = self._called(step["on"]), self._clients[step["by"]]
        tries: dict[str, Callable[[], Any]] = {
            "share": lambda: client.share(called, step["by"], Permission.MANAGE),
            "unshare": lambda: client.unshare(called, "public"),
            "hand_over": lambda: client.hand_over(called, step["by"]),
            "delete": lambda: client.delete_workspace(called),
            "rename": lambda: client.change_workspace(called, name="mine"),
            "archive": lambda: client.change_workspace(called, archived=True),
            "shares": lambda: client.shares(called),
        }
        try:
            done = tries[step["what"]]()
        except (NotAllowed, NotFound):
            return
        raise Wrong(f"{step['by']} did {step['what']} to {called}: {done}")

    # ------------------------------------------------------------------------------------------ the owner, and outages

    def _do_pause(self, step: Step) -> None:
        state = self.state
        if state.agent_up:
            asyncio.run(ask_running(self.rig.agent.state, Ask(What.PAUSE if step["on"] else What.RESUME)))
        else:
            said = self.rig.agent.ask("pause" if step["on"] else "resume")
            if state.server_up:
                said.good()
            state.ruled_read_only = state.read_only
            state.frozen_at = time.time()
        state.paused = step["on"]
        self._focus |= set(state.places.values())

    def _do_ceiling(self, step: Step) -> None:
        state, path = self.state, self.rig.agent.state / "ceiling.toml"
        text = path.read_text()
        before, after = (f"\nread_only = {str(one).lower()}\n" for one in (state.read_only, step["read_only"]))
        assert before in text
        new = path.with_name("ceiling.new")
        new.write_text(text.replace(before, after))
        new.chmod(0o600)
        new.replace(path)
        state.read_only = step["read_only"]
        if state.agent_up:
            state.ruled_read_only = state.read_only
            self._late = "ceiling"
            self._focus |= set(state.places.values())

    def _do_agent(self, step: Step) -> None:
        state, agent = self.state, self.rig.agent
        if step["up"]:
            agent.start()
            until("the agent answers its owner", self._agent_answers, seconds=BACK_S)
            state.agent_up, state.frozen_at, state.ruled_read_only = True, None, state.read_only
            self._back()
            return
        agent.kill()
        state.agent_up = False
        state.cut_off(time.time(), frozen=True)
        self._unseen = True
        if state.hub_up:
            until("the hub notices", lambda: not self._online(), seconds=BACK_S)

    def _do_hub(self, step: Step) -> None:
        state = self.state
        if step["up"]:
            self._hub.start()
            state.hub_up = True
            self._back()
            return
        if self._chance.random() < 0.5:
            self._hub.kill()
        else:
            self._hub.stop()
        state.hub_up = False
        state.cut_off(time.time(), frozen=False)
        self._unseen = True

    def _do_server(self, step: Step) -> None:
        state = self.state
        self._prober.close()
        if step["up"]:
            self.rig.server.start()
            state.server_up = True
            self._back()
            return
        if self._chance.random() < 0.5:
            self.rig.server.kill()
        else:
            self.rig.server.stop()
        state.server_up = False
        state.cut_off(time.time(), frozen=False)
        self._unseen = True

    def _agent_answers(self) -> bool:
        try:
            asyncio.run(ask_running(self.rig.agent.state, Ask(What.STATUS)))
        except (NoneRuns, WioError):
            return False
        return True

    def _online(self) -> bool:
        with contextlib.suppress(WioError):
            return self._clients[OWNER].node(NODE).state is NodeState.ONLINE
        return False

    def _back(self) -> None:
        """After a part came back: what was pending is enforced first thing, and before a key is made for whom it concerns."""
        state = self.state
        self._focus |= set(state.places.values())
        self._late = "back"
        if not state.whole:
            return
        until("the node is online", self._online, seconds=BACK_S)
        state.known = None
        self._settle_quotas()
        self._unseen = False

    # ------------------------------------------------------------------------------------------ trying

    def _check(self) -> None:
        """Try keys and look at what the hub shows."""
        state = self.state
        if state.server_up:
            tries = self._tries([key for keys in self._keys.values() for key in self._living(keys)], state.places.values())
            if not self._all:
                about = [one for one in tries if one.place in self._focus]
                beside = [one for one in tries if one.place not in self._focus]
                about = self._one_key_each(about)
                tries = about + self._chance.sample(beside, min(BESIDE, len(beside)))
            self._sure(tries, "keys that are out")
        if state.hub_up and state.facts.workspaces:
            self._check_fresh_key()
            self._check_lists()

    def _living(self, keys: Sequence[Key]) -> list[Key]:
        return [one for one in keys if one.expires > time.time() + 30]

    def _one_key_each(self, tries: list[Try]) -> list[Try]:
        """Of the keys of a person leave one for each place and operation."""
        self._chance.shuffle(tries)
        return list({(one.key.who, one.place, one.op): one for one in tries}.values())

    def _tries(self, keys: Iterable[Key], places: Iterable[Place]) -> list[Try]:
        return [
            Try(key, place, op, link=self._chance.random() < 0.5)
            for key, place, op in itertools.product(keys, places, Op)
            if MARKER in self.state.sizes.get(place, ())
        ]

    def _expected(self, one: Try, now: float) -> frozenset[Op]:
        opens = self.state.opens(one.key.who, one.place, now)
        if one.key.only_reading:
            opens &= READING
        return NOTHING if one.key.within not in {None, one.place} else opens

    def _sure(self, tries: Sequence[Try], what: str) -> None:
        """Try all; what is more than allowed is wrong at once unless it takes effect later, what is less after a deadline."""
        began, left = time.monotonic(), list(tries)
        patience = {"": GIVEN_S, "back": BACK_S}.get(self._late, LATE_S)
        while left:
            before = time.time()
            try:
                passed = self._prober.statuses(left)
            except NotReady:
                if self._late == "back" and time.monotonic() - began < patience:
                    continue
                raise
            after = time.time()
            more = [
                one for one, yes in zip(left, passed, strict=True) if yes and one.op not in self._expected(one, before - ENDS_S)
            ]
            less = [
                one
                for one, yes in zip(left, passed, strict=True)
                if not yes and one.op in self._expected(one, after) and one.op in self._expected(one, before)
            ]
            waited = time.monotonic() - began
            if (more and not self._late) or ((more or less) and waited > patience):
                raise Wrong(self._told(what, more, less, waited))
            left = more + less
        self._took(self._late or "given", began)

    def _told(self, what: str, more: Sequence[Try], less: Sequence[Try], waited: float) -> str:
        lines = [f"{what}, {waited:.1f} s after the step ({self._late or 'in force at once'}):"]
        lines += [f"  passed and must not: {one}" for one in more[:12]]
        lines += [f"  refused and must pass: {one}" for one in less[:12]]
        lines += [f"  ({len(more)} and {len(less)} in all)"]
        for one in (*more, *less)[:2]:
            for link in (False, True):
                again = Try(one.key, one.place, one.op, link=link)
                lines.append(f"  once more, {again}: {self._prober.answer(again)}")
        for place in {one.place for one in (*more, *less)}:
            lines.append(f"  {place}: {self.state.facts.at(place)}")
        lines.append(f"  groups {self.state.facts.groups}, quotas {self.state.facts.quotas}, paused {self.state.paused}")
        return "\n".join(lines)

    def _took(self, what: str, began: float) -> None:
        self.figures.latest[what] = max(self.figures.latest.get(what, 0.0), time.monotonic() - began)

    def _check_fresh_key(self) -> None:
        """A new key for somebody does exactly what the model says."""
        who, number = self._chance.choice(PEOPLE), self._chance.choice(list(self.state.facts.workspaces))
        key = self._fetch(who, number, self._chance.choice(["whole", "whole", "reading", "narrow"]))
        if key is not None and self.state.server_up:
            tries = self._tries([key], self.state.places.values())
            about = [one for one in tries if one.place in self._focus or self._all]
            beside = [one for one in tries if one not in about]
            self._sure(about + self._chance.sample(beside, min(BESIDE // 2, len(beside))), "a new key")

    # ------------------------------------------------------------------------------------------ what the hub shows

    def _check_lists(self) -> None:
        who = self._chance.choice(PEOPLE)
        facts, client, now = self.state.facts, self._clients[who], time.time()
        listed = {f"{one.owner}/{one.name}": one.permission for one in client.workspaces("all")}
        shown = {
            one.called: facts.shown(who, number, now)
            for number, one in facts.workspaces.items()
            if facts.knows(who, number, now)
        }
        if listed != shown and shown == {
            one.called: facts.shown(who, number, time.time())
            for number, one in facts.workspaces.items()
            if facts.knows(who, number, time.time())
        }:
            raise Wrong(f"{who} is shown the workspaces {listed}, and should be {shown}")
        if self._chance.random() < 0.5:
            self._check_folder(who)
        if self._chance.random() < 0.35:
            self._check_search(who)
        if self._chance.random() < 0.2:
            self._check_shares()
        if self._chance.random() < 0.08 and self.state.whole and not self._late:
            self._check_why(who)

    def _check_folder(self, who: str) -> None:
        number = self._chance.choice(list(self.state.facts.workspaces))
        one = self.state.facts.workspaces[number]
        reads = self.state.facts.reads(who, number, time.time())
        names: list[str] = []

        def right() -> bool:
            names[:] = [entry.path for entry in self._clients[who].files(one.called, limit=1000).entries]
            return f"{one.called}/{MARKER}" in names or MARKER not in self.state.sizes[one.place]

        try:
            right()
        except (NotAllowed, NotFound) as error:
            if reads:
                raise Wrong(f"{who} cannot list {one.called}: {error}") from error
            return
        if not reads:
            raise Wrong(f"{who} lists {one.called}: {names}")
        if self.state.whole:
            until(f"{MARKER} of {one.called} is catalogued", right, seconds=BACK_S)

    def _check_search(self, who: str) -> None:
        facts, now = self.state.facts, time.time()
        found: set[str] = set()

        def readable() -> set[str]:
            return {
                f"{one.called}/{MARKER}"
                for number, one in facts.workspaces.items()
                if facts.reads(who, number, now) and MARKER in self.state.sizes[one.place]
            }

        def right() -> bool:
            page = self._clients[who].search("name:marker*", limit=1000)
            found.clear()
            found.update(hit.path for hit in page.hits)
            if page.total != len(page.hits):
                raise Wrong(f"A total of {page.total} and {len(page.hits)} hits for {who}")
            if not found <= readable():
                raise Wrong(f"{who} finds {found - readable()}, and may read {readable()}")
            return found == readable()

        if not right() and self.state.whole:
            try:
                until("everything is found", right, seconds=BACK_S)
            except TimeoutError:
                raise Wrong(f"{who} finds {found}, and should find {readable()}") from None

    def _check_shares(self) -> None:
        one = self._chance.choice(list(self.state.facts.workspaces.values()))
        found: dict[str, Share] = {}

        def agreed() -> bool:
            now = time.time()
            found.clear()
            found.update({share.who: share for share in self._clients[one.owner].shares(one.called)})
            wanted = {who: given.permission for who, given in one.shares.items() if given.lives(now)}
            if {who: str(share.permission) for who, share in found.items()} != wanted:
                raise Wrong(f"{one.called} is shown as shared with {found}, and is with {wanted}")
            return all(share.applied for share in found.values())

        if not agreed() and self.state.whole and not self.state.ruled_read_only:
            try:
                until("the node has confirmed", agreed, seconds=LATE_S)
            except TimeoutError:
                doubtful = {who: share.reason for who, share in found.items() if not share.applied}
                raise Wrong(f"{one.called} is shared, and said not to be: {doubtful}") from None

    def _check_why(self, who: str) -> None:
        number = self._chance.choice(list(self.state.facts.workspaces))
        one = self.state.facts.workspaces[number]
        if not self.state.facts.knows(who, number, time.time()):
            return
        last: list[Any] = []

        def agrees() -> bool:
            last[:] = [self._clients[who].why(who, f"{one.called}/{MARKER}")]
            return last[0].agrees is not False

        try:
            until("why agrees", agrees, seconds=GIVEN_S)  # the hub hears of a pause a moment later
        except TimeoutError:
            raise Wrong(f"The server does not agree with why: {last}") from None


def _covers(has: str, wanted: str) -> bool:
    order = [READ, WRITE, "manage"]
    if DROP in {has, wanted}:
        return has == wanted or (wanted == DROP and has in {WRITE, "manage"})
    return order.index(has) >= order.index(wanted)
