"""The ceiling: what the owner of this machine allows at most, whatever the hub says. Pure; the file is TOML.

A grant above the ceiling is narrowed to what lies under it, or left out where nothing does; either way the hub is told
which grant and why. Whoever edits the file narrows at once what is out already.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from protocol.errors import BadInput, BadName, BadSetting, OverCeiling
from protocol.grants import Grant, Permission, Subject, SubjectKind
from protocol.hours import minutes
from protocol.messages import IndexLevel, Refusal, RootConfig
from protocol.names import SEPARATOR, Layout, check_bucket, check_name, check_prefix, shown
from spoke_agent.access.reach import narrower

DAY_S: Final = 86_400
EVERYBODY: Final = "public"
"""The word that stands for everyone in ``people``, as everywhere a person is named."""
MAX_REFUSALS: Final = 200
"""Refusals in one message (``protocol.messages.GrantsRefused``)."""

TEMPLATE: Final = """\
# What this machine allows at most. Nothing the hub says can go beyond it, and only you can change it.
# Every line may be left out. The agent reads this file again when it changes; check it with: wio-agent ceiling check

# Where people may be let in: "bucket", or "bucket/folder/". Leave it out for every bucket the agent may use.
# A bucket also stands for the buckets wio makes for its workspaces (bucket--person--workspace).
# places = ["lab", "archive/released/"]

# The most anybody may do: "read" or "write". (Managing a workspace is writing, as far as this machine is concerned.)
highest_permission = "write"

# true: people can read, and nobody can write, whatever was granted.
read_only = false

# The longest life of a key, in seconds: 900 to 31536000.
longest_key_s = 43200

# The longest life of a presigned link, which opens one file to whoever has it: "15m", "12h", "7d" (the most there is); "0" for
# no links at all. Links that are out already live on, unless you say "0".
longest_link = "7d"

# How long access goes on without a word from the hub, in seconds: 900 to 31536000.
longest_lease_s = 2592000

# Who may be let in, by user name; "public" stands for everyone. Leave it out for everybody the hub knows.
# people = ["alice", "bob"]

# The most the hub may know of your files: "none", "names", "metadata" or "content".
highest_index_level = "content"

# How many objects a second may be listed at most while a root is scanned: 0 for no limit. A slower pace of a root's own holds.
highest_pace = 0

# Hours of this machine's day in which nothing is scanned, beside those of each root. Changes that are reported still count,
# and what you ask for here, or a person at the hub by name, runs anyway.
# quiet_hours = ["08:00-18:00"]
"""

_LEVELS: Final = {
    IndexLevel.NONE: 0,
    IndexLevel.LOCAL: 0,  # stays on this machine
    IndexLevel.NAMES: 1,
    IndexLevel.METADATA: 2,
    IndexLevel.CONTENT: 3,
}

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": DAY_S}
_LINK_LIFE = re.compile(r"([0-9]{1,7})([smhd]?)\Z")
LONGEST_LINK_S: Final = 7 * DAY_S
"""The most that a SigV4 link can say."""

Life = Annotated[int, msgspec.Meta(ge=900, le=31_536_000)]


class Ceiling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The owner's limits. Lives in seconds. Empty ``places`` and ``people`` (None) mean no limit of that kind."""

    places: tuple[str, ...] | None = None
    highest_permission: Permission = Permission.WRITE
    read_only: bool = False
    longest_key_s: Life = 43_200
    longest_link: Annotated[str, msgspec.Meta(max_length=20)] | int = "7d"
    longest_lease_s: Life = 30 * DAY_S
    people: tuple[str, ...] | None = None
    highest_index_level: IndexLevel = IndexLevel.CONTENT
    highest_pace: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] = 0
    quiet_hours: tuple[str, ...] | None = None

    @property
    def highest(self) -> Permission:
        """The highest permission, the read-only switch included."""
        return Permission.READ if self.read_only else self.highest_permission

    @property
    def longest_link_s(self) -> int:
        """How long a presigned link may live, in seconds; 0: there are to be none. Raises BadInput."""
        found = _LINK_LIFE.match(str(self.longest_link))
        seconds = int(found[1]) * _UNITS[found[2]] if found is not None else -1
        if not 0 <= seconds <= LONGEST_LINK_S:
            raise BadInput('longest_link is a length of time up to seven days, like "15m", "12h" or "7d", or "0"')
        return seconds


class Line(msgspec.Struct, frozen=True):
    """One limit as the owner's file has it. ``number`` is its line, 0 where the file leaves it out and the default holds."""

    number: int
    setting: str
    value: str
    means: str


class Clamped(msgspec.Struct, frozen=True):
    """What is left of grants under the ceiling, and what was cut away."""

    grants: tuple[Grant, ...]
    refusals: tuple[Refusal, ...]


def parse(text: str) -> Ceiling:
    """Read the ceiling file; raise BadSetting that says what is wrong and in which line."""
    todo = "Edit the file, then check it: wio-agent ceiling check"

    def wrong(setting: str, what: str, then: str = "") -> BadSetting:
        number = _line_of(text, setting) if setting else 0
        where = f" in line {number}" if number else ""
        return BadSetting(f"The ceiling file cannot be used{where}: {what.rstrip('.')}.", todo=then or todo)

    try:
        ceiling = msgspec.convert(tomllib.loads(text), Ceiling)
    except tomllib.TOMLDecodeError as error:
        raise BadSetting(f"The ceiling file is not TOML: {error}.", todo=todo) from error
    except msgspec.ValidationError as error:
        raise wrong(*_explained(str(error))) from error
    if ceiling.highest_permission not in {Permission.READ, Permission.WRITE}:
        raise wrong("highest_permission", "highest_permission is read or write")
    if ceiling.highest_index_level is IndexLevel.LOCAL:
        raise wrong("highest_index_level", "highest_index_level is none, names, metadata or content")
    try:
        _ = ceiling.longest_link_s
    except BadInput as error:
        raise wrong("longest_link", error.message) from error
    for setting, check in (("places", _check_place), ("people", _check_person), ("quiet_hours", minutes)):
        try:
            for one in getattr(ceiling, setting) or ():
                check(one)
        except (BadName, BadInput) as error:
            raise wrong(setting, error.message, error.todo) from error
    return ceiling


def _check_place(place: str) -> None:
    bucket, _, prefix = place.partition("/")
    check_bucket(bucket)
    check_prefix(prefix)


def _check_person(name: str) -> None:
    if name != EVERYBODY:
        check_name(name, "user")


_FIELD = re.compile(r"`(?:\$\.)?([^`$.\[]+)(?:\[[^`]*)?`$")


def _explained(error: str) -> tuple[str, str]:
    """Turn ``Expected `int` >= 900 - at `$.longest_key_s``` into the setting and a part of a sentence."""
    found = _FIELD.search(error)
    setting = found.group(1) if found is not None else ""
    what, _, _ = error.partition(" - at ")
    what = what.replace("`", "")
    if what.startswith("Object contains unknown field"):
        return setting, f"there is no setting {setting}; those there are: {', '.join(Ceiling.__struct_fields__)}"
    return setting, f"{setting}: {what[:1].lower()}{what[1:]}" if setting else what


def _line_of(text: str, setting: str) -> int:
    """Return the number of the line that sets this; 0 where none does."""
    begins = re.compile(rf"\s*[\"']?{re.escape(setting)}[\"']?\s*=")
    return next((number for number, line in enumerate(text.splitlines(), 1) if begins.match(line)), 0)


def explain(text: str) -> tuple[Line, ...]:
    """Say each limit of the file in words, in the order of the file, then those it leaves out. Raises BadSetting."""
    ceiling = parse(text)
    lines, meanings = [], _meanings(ceiling)
    for setting in Ceiling.__struct_fields__:
        value = getattr(ceiling, setting)
        shown_value = ", ".join(value) or "(nobody, nowhere)" if isinstance(value, tuple) else str(value).lower()
        number = _line_of(text, setting)
        lines.append(Line(number, setting, "no limit" if value is None else shown_value, meanings[setting]))
    return tuple(sorted(lines, key=lambda line: (line.number == 0, line.number)))


def _meanings(ceiling: Ceiling) -> dict[str, str]:
    """Return what each limit means for people, in words."""
    writing = "read_only stands above it." if ceiling.read_only else "People can write where they were granted that."
    reading = "People can read, whatever was granted."
    named = _words(ceiling.people or ())
    shut = "" if EVERYBODY in (ceiling.people or ()) else ' What is shared with everyone opens nothing ("public" would let it).'
    return {
        "places": "People are let in anywhere." if ceiling.places is None else f"Only in {_words(ceiling.places)}.",
        "highest_permission": reading if ceiling.highest_permission is Permission.READ else writing,
        "read_only": "Nobody can write, whatever was granted." if ceiling.read_only else "Writing is not shut for all.",
        "longest_key_s": f"A key lives {_span(ceiling.longest_key_s)} at most.",
        "longest_link": f"A presigned link lives {_span(ceiling.longest_link_s)} at most."
        if ceiling.longest_link_s
        else "Nobody can make presigned links, and those that are out open nothing.",
        "longest_lease_s": f"Without a word from the hub access ends after {_span(ceiling.longest_lease_s)} at the latest.",
        "people": "Everybody the hub knows can be let in." if ceiling.people is None else f"Only {named} can be let in.{shut}",
        "highest_index_level": f"The hub may know {_KNOWS[ceiling.highest_index_level]}.",
        "highest_pace": _pace_means(ceiling),
        "quiet_hours": _hours_mean(ceiling),
    }


def _pace_means(ceiling: Ceiling) -> str:
    if not ceiling.highest_pace:
        return "Scans go as fast as their root's own pace, or the storage server, allows."
    return f"Scans list {ceiling.highest_pace:,} objects a second at most, or fewer where a root asks for that."


def _hours_mean(ceiling: Ceiling) -> str:
    if not ceiling.quiet_hours:
        return "Scans rest in the quiet hours of their root only."
    hours = " and ".join(ceiling.quiet_hours)
    return f"No scan runs {hours} by this machine's clock, nor in its root's own quiet hours, unless somebody asks for it."


_KNOWS: Final = {
    IndexLevel.NONE: "nothing of your files",
    IndexLevel.NAMES: "the names of your files, no more",
    IndexLevel.METADATA: "names, sizes and times of your files",
    IndexLevel.CONTENT: "what is in your files, where a root asks for that",
}


def _span(seconds: int) -> str:
    for size, word in ((DAY_S, "d"), (3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds // size} {word}"
    return f"{seconds} s"


def sentences(ceiling: Ceiling) -> tuple[str, ...]:
    """Say the limits in words, one sentence each, for the hub's people."""
    said = []
    if ceiling.places is not None:
        said.append(f"Only in {_words(ceiling.places)}.")
    if ceiling.read_only:
        said.append("Read only: nobody may write.")
    elif ceiling.highest_permission is Permission.READ:
        said.append("At most read.")
    said.append(f"A key lives {ceiling.longest_key_s} s at most.")
    said.append(f"A link lives {_span(ceiling.longest_link_s)} at most." if ceiling.longest_link_s else "No presigned links.")
    said.append(f"Access goes on for {ceiling.longest_lease_s} s at most without a word from the hub.")
    if ceiling.people is not None:
        said.append(f"Only for {_words(ceiling.people)}.")
    if ceiling.highest_index_level is not IndexLevel.CONTENT:
        said.append(f"The hub may know at most {ceiling.highest_index_level} of the files.")
    if ceiling.highest_pace:
        said.append(f"Scans list at most {ceiling.highest_pace} objects a second.")
    if ceiling.quiet_hours:
        said.append(f"No scan runs {' and '.join(ceiling.quiet_hours)} by the node's clock, unless a person asks for it.")
    return tuple(sentence[:500] for sentence in said)


def clamp(ceiling: Ceiling, subject: Subject, grants: Iterable[Grant]) -> Clamped:
    """Narrow grants to what lies under the ceiling, and name every one that was cut (the first 200 of them)."""
    kept: list[Grant] = []
    refusals: list[Refusal] = []
    person = _person_refused(ceiling, subject)
    if subject.kind is SubjectKind.LINK and not ceiling.longest_link_s:
        person = "The owner of this node wants no presigned links."
    for grant in grants:
        left, why = (None, person) if person else _narrow(ceiling, grant)
        if left is not None:
            kept.append(left)
        if why:
            refusals.append(Refusal(grant.workspace, OverCeiling(why[:500]).problem))
    return Clamped(tuple(kept), tuple(refusals[:MAX_REFUSALS]))


def check_root(ceiling: Ceiling, root: RootConfig) -> None:
    """Raise OverCeiling unless a root may be made here."""
    if not _inside(ceiling, root.bucket, root.prefix if root.layout is Layout.PREFIX else ""):
        raise OverCeiling(
            f"The owner of this node does not let wio into {shown(root.bucket + '/' + root.prefix)}.",
            todo="Choose another place, or ask the owner to change the ceiling file.",
        )
    check_level(ceiling, root)


def check_level(ceiling: Ceiling, root: RootConfig) -> None:
    """Raise OverCeiling where the hub would know more of a root than the owner allows."""
    if _LEVELS[root.level] > _LEVELS[ceiling.highest_index_level]:
        raise OverCeiling(
            f"The owner of this node lets the hub know at most {ceiling.highest_index_level} of files; "
            f"root {root.name} asks for {root.level}.",
            todo=f"Choose {ceiling.highest_index_level} or less, or ask the owner to change the ceiling file.",
        )


def check_place(ceiling: Ceiling, bucket: str, prefix: str) -> None:
    """Raise OverCeiling where the owner does not let wio in."""
    if not _inside(ceiling, bucket, prefix):
        raise OverCeiling(f"The owner of this node does not let wio into {shown(bucket + '/' + prefix)}.")


def check_link(ceiling: Ceiling, life_s: int) -> None:
    """Raise OverCeiling where a presigned link may not be made, or not for so long."""
    longest_s = ceiling.longest_link_s
    if not longest_s:
        raise OverCeiling("The owner of this node wants no presigned links.", todo="Share the folder, or ask the node's owner.")
    if life_s > longest_s:
        raise OverCeiling(
            f"The owner of this node lets a link live {_span(longest_s)} at most; {_span(life_s)} were asked for.",
            todo="Ask for a shorter --expires.",
        )


def _narrow(ceiling: Ceiling, grant: Grant) -> tuple[Grant | None, str]:
    where = shown(f"{grant.bucket}/{grant.prefix}")
    if not _inside(ceiling, grant.bucket, grant.prefix):
        return None, f"The owner of this node does not let wio into {where}; nothing was opened there."
    if ceiling.highest is Permission.WRITE:
        return grant, ""  # to manage is to write, on storage
    left = narrower(grant.permission, ceiling.highest)
    if left is None:
        return None, f"The owner of this node allows at most {ceiling.highest}; {grant.permission} on {where} was not opened."
    if left is grant.permission:
        return grant, ""
    narrowed = msgspec.structs.replace(grant, permission=left)
    return narrowed, f"The owner of this node allows at most {left}; {grant.permission} on {where} counts as {left} there."


def _person_refused(ceiling: Ceiling, subject: Subject) -> str:
    if ceiling.people is None or subject.kind is SubjectKind.LINK:  # a link does no more than who made it
        return ""
    if subject.kind is SubjectKind.PERSON:
        return "" if subject.name in ceiling.people else f"The owner of this node does not let {shown(subject.name)} in."
    if EVERYBODY in ceiling.people:
        return ""
    return f"The owner of this node lets in named people only, not {shown(subject.name)}."


def _inside(ceiling: Ceiling, bucket: str, prefix: str) -> bool:
    if ceiling.places is None:
        return True
    for place in ceiling.places:
        name, _, folder = place.partition("/")
        if bucket == name and prefix.startswith(folder):
            return True
        if not folder and bucket.startswith(name + SEPARATOR):
            return True
    return False


def _words(names: tuple[str, ...]) -> str:
    return ", ".join(names) if names else "nobody and nowhere"
