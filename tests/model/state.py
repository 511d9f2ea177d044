"""Where the model stands: the facts, which parts of the real thing run, and what the node's agent knows of the facts."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.model.reference import (
    DROP,
    MANAGE,
    NOTHING,
    PUBLIC,
    RANK,
    READ,
    Facts,
    Given,
    Op,
    Place,
    Quota,
    Root,
    Workspace,
)

OWNER = "alice"
PEOPLE = (OWNER, "bob", "carol", "dave")
ADMIN = "warden"
GROUPS = {"red": "alice", "blue": "bob"}
"""Groups and who owns them."""
ROOTS = {
    one.name: one
    for one in (
        Root("homes", "homes", "", "bucket"),
        Root("open", "open", "shelf/", "prefix", public=True),
        Root("lab", "lab", "data/", "prefix", managed=False),
    )
}
ENOUGH = {one: frozenset(other for other in RANK if RANK[other] >= RANK[one]) for one in RANK} | {
    DROP: frozenset({DROP, "write", MANAGE})
}


@dataclass
class State:
    """Everything the model knows. ``known``: the facts as the agent last heard them, where that is not what they are now.

    ``frozen_at``: while no agent runs nothing ends at the storage server, so it stands as it stood then (Unix seconds).
    """

    facts: Facts = field(default_factory=lambda: Facts(dict(ROOTS)))
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    """Every place there ever was, by root and folder."""
    last_owner: dict[Place, str] = field(default_factory=dict)
    sizes: dict[Place, dict[str, int]] = field(default_factory=dict)
    requests: dict[tuple[str, int], str] = field(default_factory=dict)
    hub_up: bool = True
    agent_up: bool = True
    server_up: bool = True
    paused: bool = False
    read_only: bool = False
    """What the owner's file says; the agent reads it while it runs."""
    ruled_read_only: bool = False
    """What the agent last read there."""
    known: Facts | None = None
    frozen_at: float | None = None
    outage_steps: int = 0
    made: int = 0

    @staticmethod
    def now() -> float:
        return time.time()

    @property
    def connected(self) -> bool:
        return self.hub_up and self.agent_up

    @property
    def whole(self) -> bool:
        """Whether every part runs."""
        return self.connected and self.server_up

    # ------------------------------------------------------------------------------------------ what is allowed

    def opens(self, who: str, place: Place, now: float) -> frozenset[Op]:
        """Return what the storage server is to allow somebody at a place."""
        if self.paused:
            return NOTHING
        facts = self.facts if self.known is None else self.known
        at = now if self.frozen_at is None else self.frozen_at
        return facts.opens(who, place, at, read_only=self.ruled_read_only)

    def wanted(self, who: str, place: Place, now: float) -> frozenset[Op]:
        """Return what it would be if the agent knew everything."""
        return NOTHING if self.paused else self.facts.opens(who, place, now, read_only=self.ruled_read_only)

    def cut_off(self, now: float, *, frozen: bool) -> None:
        """Note that the agent learns nothing more; ``frozen``: nor does anything."""
        if self.known is None:
            self.known = copy.deepcopy(self.facts)
        if frozen:
            self.frozen_at = now

    def used(self, quota: Quota) -> int:
        """Return how many bytes a quota counts."""
        if quota.kind == "root":
            return sum(sum(files.values()) for place, files in self.sizes.items() if place.root == quota.target)
        found = [one.place for number, one in self.facts.workspaces.items() if self.facts.counts(quota, number)]
        return sum(sum(self.sizes.get(place, {}).values()) for place in found)

    # ------------------------------------------------------------------------------------------ what makes sense

    def sensible(self, step: dict[str, Any]) -> bool:  # noqa: PLR0911, PLR0912, C901 - one case a step
        """Say whether a step can be played and must succeed, outages apart; also of histories that had steps taken out."""
        facts, now = self.facts, self.now()
        number = step.get("on")
        one = facts.workspaces.get(number) if isinstance(number, int) and not isinstance(number, bool) else None
        match step["do"]:
            case "pause":
                return step["on"] is not self.paused
            case "ceiling":
                return step["read_only"] is not self.read_only and self.server_up
            case "agent":
                return step["up"] is not self.agent_up and self.server_up
            case "hub":
                return step["up"] is not self.hub_up and self.server_up
            case "server":
                return step["up"] is not self.server_up and (step["up"] or self.connected)
            case "fill" | "clear":
                return one is not None and self.server_up and (step["do"] == "fill" or len(self.sizes[one.place]) > 1)
        if not self.hub_up:
            return False
        match step["do"]:
            case "create":
                return self._creatable(step)
            case "member":
                group, who = step["group"], step["who"]
                return group in facts.groups and who != GROUPS[group] and (who in facts.groups[group]) is not step["in"]
            case "group":
                return (step["group"] in facts.groups) is not step["there"]
            case "unquota":
                return step["which"] < len(facts.quotas)
            case "quota":
                return (one is not None or step["kind"] != "workspace") and self.quota_key(step) not in facts.quotas
        if one is None:
            return False
        by = step.get("by")
        match step["do"]:
            case "share":
                group = step["with"].removeprefix("@")
                there = not step["with"].startswith("@") or group in facts.groups
                sense = step["with"] != PUBLIC or step["permission"] not in {DROP, MANAGE}
                return there and sense and step["with"] != one.owner and facts.manages(by, number, now)
            case "unshare":
                given = one.shares.get(step["with"])
                return given is not None and given.lives(now) and step["with"] != one.owner and facts.manages(by, number, now)
            case "archive" | "describe":
                changes = step["do"] == "describe" or one.archived is not step["archived"]
                return changes and facts.manages(by, number, now)
            case "rename":
                return not self._named(one.owner, step["name"])
            case "hand_over":
                return step["to"] != one.owner and not self._named(step["to"], one.name)
            case "request":
                known = facts.knows(by, number, now) or one.described
                held = set(facts.held(by, number, now))
                return known and not held & ENOUGH[step["permission"]] and (by, number) not in self.requests
            case "answer":
                return (step["who"], number) in self.requests and facts.manages(by, number, now)
            case "intrude":
                mine = one.owner == by
                may = mine if step["what"] in {"hand_over", "delete", "rename"} else facts.manages(by, number, now)
                return not may
        return True

    def _creatable(self, step: dict[str, Any]) -> bool:
        by, root = step["by"], ROOTS[step["root"]]
        place = root.place(self.folder(step))
        left = self.last_owner.get(place)
        free = self.facts.at(place) is None and (left in {None, by} or (not root.managed and by == OWNER))
        return free and not self._named(by, step["name"])

    @staticmethod
    def folder(step: dict[str, Any]) -> str:
        """Return the folder of a workspace to be made."""
        return str(step.get("folder") or f"{step['by']}/{step['name']}")

    def _named(self, owner: str, name: str) -> bool:
        return any((one.owner, one.name) == (owner, name) for one in self.facts.workspaces.values())

    @staticmethod
    def quota_key(step: dict[str, Any]) -> tuple[str, object]:
        """Return what a quota step is about."""
        kind = step["kind"]
        target = {
            "user": step["user"],
            "user-root": (step["user"], step["root"]),
            "root": step["root"],
            "workspace": step["on"],
        }[kind]
        return kind, target

    # ------------------------------------------------------------------------------------------ changes that were made

    def create(self, step: dict[str, Any]) -> int:
        """Note a new workspace; return its number."""
        number, self.made = self.made, self.made + 1
        folder = self.folder(step)
        place = self.places.setdefault((step["root"], folder), ROOTS[step["root"]].place(folder))
        one = Workspace(step["by"], step["name"], place)
        if step["public"]:
            one.shares[PUBLIC] = Given(READ)
        self.facts.workspaces[number] = one
        self.last_owner.pop(place, None)
        self.sizes.setdefault(place, {})
        return number

    def hand_over(self, number: int, to: str, keep: str | None) -> None:
        """Note that a workspace has another owner."""
        one = self.facts.workspaces[number]
        before, one.owner = one.owner, to
        one.shares.pop(to, None)
        self.requests.pop((to, number), None)
        if keep is not None:
            one.shares[before] = Given(keep)

    def delete(self, number: int) -> None:
        """Note that a workspace is no more; its files stay, for its last owner to take up again."""
        one = self.facts.workspaces.pop(number)
        self.last_owner[one.place] = one.owner
        self.requests = {key: value for key, value in self.requests.items() if key[1] != number}
        self.facts.quotas.pop(("workspace", number), None)

    def delete_group(self, group: str) -> None:
        """Note that a group is no more, nor what it was given."""
        del self.facts.groups[group]
        for one in self.facts.workspaces.values():
            one.shares.pop(f"@{group}", None)

    def soonest(self, now: float) -> Iterator[float]:
        """Yield the moments at which a share ends, from a little ago on."""
        return (until for until in self.facts.windows() if until > now - 1)
