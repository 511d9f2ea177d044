"""What the owner is shown of everybody's access: who reaches what, what that costs the server, what the ceiling cuts.

Reads what ``principals`` holds and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from protocol.errors import StorageRefused
from protocol.grants import Grant, Permission
from spoke_agent.access.ceiling import Ceiling, clamp
from spoke_agent.access.principals import Principal, Principals
from spoke_agent.storage.node import Weight

MANY_GRANTS: Final = 600
"""Grants of one person above which the storage server gets slow (4-storage)."""
MOST_CUTS: Final = 3
"""Subjects that the warnings name whose grants the ceiling cuts."""


class Reach(msgspec.Struct, frozen=True):
    """One line of what ``wio-agent grants`` shows. ``expires`` in Unix seconds."""

    subject: str
    kind: str
    place: str
    permission: Permission
    expires: int | None
    epoch: int
    keys_out: int
    enforced: bool


class Budget(msgspec.Struct, frozen=True):
    """What one subject's access costs the storage server at each request, beside what stays quick.

    A person's ``patterns`` and ``policies`` are those of their own and of what is shared with them; ``grants`` are those the
    hub signed. No policies: more than the server can hold.
    """

    subject: str
    kind: str
    grants: int
    patterns: int
    policies: int
    quick: int = MANY_GRANTS


class Cut(msgspec.Struct, frozen=True):
    """A grant that the owner's limits narrow or leave out, and why, in words."""

    subject: str
    workspace: int
    why: str


def reaches(principals: Principals) -> list[Reach]:
    """Return who can reach what now: one line per grant, the ceiling and all expiries taken into account."""
    return [
        Reach(
            one.subject.name,
            one.subject.kind.value,
            f"{grant.bucket}/{grant.prefix}",
            grant.permission,
            grant.expires,
            one.epoch,
            principals.keys_out(one),
            one.holder is None or one.enforced == allowed,
        )
        for one in _in_order(principals)
        for allowed in [principals.allowed(one).grants]
        for grant in allowed
    ]


def budgets(principals: Principals, weigh: Callable[[Sequence[Grant]], Weight]) -> list[Budget]:
    """Return what each subject's access costs, the dearest first."""

    def weight(one: Principal) -> Weight:
        grants = principals.allowed(one).grants
        try:
            return weigh(grants)
        except StorageRefused:
            return Weight(len(grants), 0)

    weights = {one.subject: weight(one) for one in principals}
    found = []
    for one in principals:
        all_of_it = [weights[one.subject], *(weights[shared.subject] for shared in _shared(principals, one))]
        patterns = sum(part.patterns for part in all_of_it)
        policies = sum(part.policies for part in all_of_it) if all(part.policies for part in all_of_it) else 0
        found.append(Budget(one.subject.name, one.subject.kind.value, len(one.granted), patterns, policies))
    return sorted(found, key=lambda budget: (-budget.patterns, budget.kind, budget.subject))


def cuts(principals: Principals, ceiling: Ceiling) -> list[Cut]:
    """Return which of the grants that are here a ceiling narrows or leaves out."""
    return [
        Cut(one.subject.name, refusal.workspace, refusal.problem.message)
        for one in _in_order(principals)
        for refusal in clamp(ceiling, one.subject, one.granted).refusals
    ]


def warnings(principals: Principals) -> list[str]:
    """Return what the owner and the hub should know of everybody's grants, one sentence each."""
    cut = [(one, refusals[0]) for one in principals if (refusals := principals.allowed(one).refusals)]
    said = [f"The ceiling cuts grants of {len(cut)} subjects: see wio-agent ceiling check."] if cut else []
    said += [f"{one.subject.name}: {refusal.problem.message}" for one, refusal in cut[:MOST_CUTS]]
    said += [
        f"{one.subject.name} has {len(one.granted)} grants here: beyond {MANY_GRANTS} every request gets slow."
        for one in principals
        if one.is_person and len(one.granted) > MANY_GRANTS
    ]
    return said + [f"Two grant sets of one epoch for {one.subject.name}." for one in principals if one.other is not None]


def _in_order(principals: Principals) -> list[Principal]:
    return sorted(principals, key=lambda one: (one.subject.kind, one.subject.name))


def _shared(principals: Principals, one: Principal) -> list[Principal]:
    return principals.shared_of(one) if one.is_person else []
