"""Which step comes next: chosen by a seeded chance from what would make sense now.

A step is a plain dictionary of words and numbers, so that a history can be written down, read and played again. Workspaces are
meant by their number, which stays the same whatever they are called and whoever owns them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.model.reference import DROP, MANAGE, PUBLIC, READ, WRITE
from tests.model.state import ADMIN, GROUPS, OWNER, PEOPLE, ROOTS, State

Step = dict[str, Any]

SHORT_S = 2
SIZE = 40_000
LIMITS = (50_000, 110_000)
NAMES = ("a", "b")
FOLDERS = ("old", "older", "oldest")
MOST = 7
KEYS = 3


class Chooser:
    """Chooses steps."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self._weights: dict[Callable[[State], Step | None], float] = {
            self.share: 18,
            self.share_briefly: 1.5,
            self.unshare: 11,
            self.member: 12,
            self.group: 2,
            self.create: 6,
            self.rename: 2,
            self.archive: 4,
            self.hand_over: 5,
            self.delete: 2.5,
            self.describe: 1,
            self.request: 3,
            self.answer: 4,
            self.quota: 4,
            self.unquota: 2.5,
            self.fill: 3,
            self.clear: 2.5,
            self.key: 5,
            self.intrude: 4,
            self.pause: 2,
            self.ceiling: 0.5,
            self.agent: 0.8,
            self.hub: 0.5,
            self.server: 0.5,
        }

    def next(self, state: State) -> Step:
        """Return a step that makes sense now."""
        while True:
            mending = state.outage_steps >= 4 + self.chance.randrange(4)
            if mending and (step := self._mend(state)):
                return step
            [make] = self.chance.choices(list(self._weights), list(self._weights.values()))
            step = make(state)
            if step is not None and state.sensible(step):
                return step

    def _mend(self, state: State) -> Step | None:
        """End what has lasted for some steps."""
        ends = []
        if not state.server_up:
            ends.append({"do": "server", "up": True})
        if not state.agent_up:
            ends.append({"do": "agent", "up": True})
        if not state.hub_up:
            ends.append({"do": "hub", "up": True})
        if state.paused:
            ends.append({"do": "pause", "on": False})
        if state.read_only:
            ends.append({"do": "ceiling", "read_only": False})
        ends = [one for one in ends if state.sensible(one)]
        return self.chance.choice(ends) if ends else None

    # ------------------------------------------------------------------------------------------ what for

    def _workspace(self, state: State) -> int:
        return self.chance.choice(list(state.facts.workspaces) or [-1])

    def _manager(self, state: State, number: int) -> str:
        managers = [one for one in PEOPLE if number in state.facts.workspaces and state.facts.manages(one, number, state.now())]
        return self.chance.choice(managers or [OWNER])

    def _whom(self) -> str:
        return self.chance.choice([*PEOPLE, *PEOPLE, *(f"@{one}" for one in GROUPS), PUBLIC])

    def _permission(self, whom: str) -> str:
        return self.chance.choice([READ, WRITE] if whom == PUBLIC else [READ, WRITE, WRITE, DROP, MANAGE])

    def share(self, state: State) -> Step:
        number, whom = self._workspace(state), self._whom()
        permission = self._permission(whom)
        return {"do": "share", "by": self._manager(state, number), "on": number, "with": whom, "permission": permission}

    def share_briefly(self, state: State) -> Step:
        return {**self.share(state), "for_s": SHORT_S}

    def unshare(self, state: State) -> Step | None:
        number = self._workspace(state)
        shares = list(state.facts.workspaces[number].shares) if number in state.facts.workspaces else []
        if not shares:
            return None
        return {"do": "unshare", "by": self._manager(state, number), "on": number, "with": self.chance.choice(shares)}

    def member(self, state: State) -> Step | None:
        if not state.facts.groups:
            return None
        group = self.chance.choice(list(state.facts.groups))
        who = self.chance.choice([one for one in PEOPLE if one != GROUPS[group]])
        return {"do": "member", "group": group, "who": who, "in": who not in state.facts.groups[group]}

    def group(self, state: State) -> Step:
        group = self.chance.choice(list(GROUPS))
        return {"do": "group", "group": group, "there": group not in state.facts.groups}

    def create(self, state: State) -> Step | None:
        if len(state.facts.workspaces) >= MOST:
            return None
        root = self.chance.choice(list(ROOTS.values()))
        if root.managed:
            by, name = self.chance.choice(PEOPLE), self.chance.choice(NAMES)
            return {"do": "create", "by": by, "name": name, "root": root.name, "public": self.chance.random() < 0.15}
        folder = self.chance.choice(FOLDERS)
        return {"do": "create", "by": OWNER, "name": folder, "root": root.name, "folder": folder, "public": False}

    def rename(self, state: State) -> Step | None:
        number = self._workspace(state)
        return {"do": "rename", "on": number, "name": f"{self.chance.choice('xyz')}{self.chance.randrange(100)}"}

    def archive(self, state: State) -> Step | None:
        number = self._workspace(state)
        one = state.facts.workspaces.get(number)
        if one is None:
            return None
        return {"do": "archive", "by": self._manager(state, number), "on": number, "archived": not one.archived}

    def hand_over(self, state: State) -> Step:
        keep = self.chance.choice([None, None, READ, WRITE, DROP, MANAGE])
        return {"do": "hand_over", "on": self._workspace(state), "to": self.chance.choice(PEOPLE), "keep": keep}

    def delete(self, state: State) -> Step | None:
        return {"do": "delete", "on": self._workspace(state)} if len(state.facts.workspaces) > 2 else None

    def describe(self, state: State) -> Step:
        number = self._workspace(state)
        return {"do": "describe", "by": self._manager(state, number), "on": number, "as": self.chance.choice(["", "described"])}

    def request(self, state: State) -> Step:
        by, number = self.chance.choice(PEOPLE), self._workspace(state)
        return {"do": "request", "by": by, "on": number, "permission": self.chance.choice([READ, WRITE, DROP, MANAGE])}

    def answer(self, state: State) -> Step | None:
        if not state.requests:
            return None
        who, number = self.chance.choice(list(state.requests))
        yes = self.chance.random() < 0.7
        return {"do": "answer", "by": self._manager(state, number), "on": number, "who": who, "yes": yes}

    def quota(self, state: State) -> Step | None:
        if len(state.facts.quotas) >= 3:
            return None
        kind, hard = self.chance.choice(["user", "user-root", "root", "workspace"]), self.chance.choice(LIMITS)
        who, root = self.chance.choice(PEOPLE), self.chance.choice(list(ROOTS))
        return {"do": "quota", "kind": kind, "user": who, "root": root, "on": self._workspace(state), "hard": hard}

    def unquota(self, state: State) -> Step | None:
        if not state.facts.quotas:
            return None
        return {"do": "unquota", "which": self.chance.randrange(len(state.facts.quotas))}

    def fill(self, state: State) -> Step:
        return {"do": "fill", "on": self._workspace(state), "bytes": SIZE}

    def clear(self, state: State) -> Step:
        return {"do": "clear", "on": self._workspace(state)}

    def key(self, state: State) -> Step:
        kind = self.chance.choice(["whole", "whole", "reading", "narrow"])
        return {"do": "key", "by": self.chance.choice(PEOPLE), "on": self._workspace(state), "kind": kind}

    def intrude(self, state: State) -> Step:
        what = self.chance.choice(["share", "unshare", "hand_over", "delete", "rename", "archive", "shares"])
        return {"do": "intrude", "by": self.chance.choice(PEOPLE), "on": self._workspace(state), "what": what}

    def pause(self, state: State) -> Step:
        return {"do": "pause", "on": not state.paused}

    def ceiling(self, state: State) -> Step:
        return {"do": "ceiling", "read_only": not state.read_only}

    def agent(self, state: State) -> Step:
        return {"do": "agent", "up": not state.agent_up}

    def hub(self, state: State) -> Step:
        return {"do": "hub", "up": not state.hub_up}

    def server(self, state: State) -> Step:
        return {"do": "server", "up": not state.server_up}


__all__ = ["ADMIN", "Chooser", "Step"]
