"""The tree of conditions that a query is read into, and what becomes of the places named in it.

The tree is tagged, so that a hub can send it to an agent. Every engine gives each condition the meaning that is said here;
tests/search has a plain evaluator of it.

Fields about places (owner, node, workspace, root, in) are names that an engine does not know. They stay in the tree as
``Place`` until ``bind_places`` has turned them into workspace ids.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import msgspec


class _Node(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all conditions."""


class Scope(enum.StrEnum):
    """Where a text is looked for."""

    ANYWHERE = "anywhere"
    """Everything that is known of the file: PATH, CONTENT, the names and values of its tags, its values that are text."""
    PATH = "path"
    """The file's name and the folders above it, inside its workspace."""
    NAME = "name"
    """The file's own name."""
    CONTENT = "content"
    """The beginning of its text (``Fields.text``)."""


class Everything(_Node, frozen=True):
    """Holds for every file."""


class Nothing(_Node, frozen=True):
    """Holds for no file."""


class Text(_Node, frozen=True):
    """These words (``search.words``) next to one another in this order.

    ``run`` is set where they were written as one (``rawData``): then a name with that one word (``rawdata``) matches too.
    ``text`` is what was asked for, folded: the name itself may equal it.
    """

    words: tuple[str, ...]
    run: str
    text: str
    scope: Scope


class Glob(_Node, frozen=True):
    """The whole name or path, folded, matches a pattern: ``*`` is anything, also ``/``; ``?`` is one character.

    ``scope`` is PATH or NAME.
    """

    pattern: str
    scope: Scope


class Extension(_Node, frozen=True):
    """The name's extension (``words.extension``) is this one, or ends in it after a dot: ``gz`` finds ``nii.gz``.

    Empty: the name has none.
    """

    value: str


class Measure(enum.StrEnum):
    """What can be compared with numbers: size in bytes, time of the last change in Unix nanoseconds."""

    SIZE = "size"
    MODIFIED = "modified"


class Range(_Node, frozen=True):
    """A number lies between two bounds, both included; None is unbounded. Bounds are 0 to 2**63 - 1."""

    measure: Measure
    low: int | None
    high: int | None


class Hidden(_Node, frozen=True):
    """The name, or a folder above it, begins with a dot."""


class Kind(_Node, frozen=True):
    """What was read out of it is of a kind (``Fields.kind``) that, folded, fits this pattern of ``*`` and ``?``."""

    pattern: str


class Tag(_Node, frozen=True):
    """One of the storage's tags, folded, fits a pattern of ``*`` and ``?``.

    With a ``=`` in it the pattern is for ``name=value``, without one for the name.
    """

    pattern: str


class HasValue(_Node, frozen=True):
    """A value of this name was read out of it, whatever it is. Names of values are as in ``Fields.values``."""

    name: str


class ValueWords(_Node, frozen=True):
    """The value of this name is text that holds these words; ``words`` and ``run`` as in ``Text``."""

    name: str
    words: tuple[str, ...]
    run: str


class ValueGlob(_Node, frozen=True):
    """The value of this name is text and, folded and as a whole, fits a pattern of ``*`` and ``?``."""

    name: str
    pattern: str


class ValueRange(_Node, frozen=True):
    """The value of this name is a number between two bounds; None is unbounded. Yes, no and text are no numbers.

    Numbers compare by what they are worth, exactly: 1 is 1.0, and 2**53 + 1 is more than 2.0**53. A bound belongs to the
    range unless ``above`` (for ``low``) or ``below`` (for ``high``) is set.
    """

    name: str
    low: int | float | None
    high: int | float | None
    above: bool = False
    below: bool = False


class ValueTruth(_Node, frozen=True):
    """The value of this name is yes (True) or no."""

    name: str
    truth: bool


class Read(_Node, frozen=True):
    """It was looked into, and nothing went wrong."""


class Unreadable(_Node, frozen=True):
    """It was looked into, and could not be read, or not as a whole."""


class PlaceField(enum.StrEnum):
    """Fields that name a place."""

    OWNER = "owner"
    NODE = "node"
    WORKSPACE = "workspace"
    ROOT = "root"
    IN = "in"


class Place(_Node, frozen=True):
    """The file lies in a place that has a name. ``column`` counts from 1 and points at ``value``."""

    field: PlaceField
    value: str
    column: int


class Within(_Node, frozen=True):
    """The file lies in one of these workspaces and, where ``path`` is not empty, below that folder or is that very file.

    ``path`` is below the workspace, exact in case, without a slash at either end.
    """

    workspaces: frozenset[int]
    path: str = ""


class Not(_Node, frozen=True):
    """The condition does not hold."""

    part: Query


class And(_Node, frozen=True):
    """All hold."""

    parts: tuple[Query, ...]


class Or(_Node, frozen=True):
    """One holds at least."""

    parts: tuple[Query, ...]


Query = (
    Everything
    | Nothing
    | Text
    | Glob
    | Extension
    | Range
    | Hidden
    | Kind
    | Tag
    | HasValue
    | ValueWords
    | ValueGlob
    | ValueRange
    | ValueTruth
    | Read
    | Unreadable
    | Place
    | Within
    | Not
    | And
    | Or
)


class PlaceScope(msgspec.Struct, frozen=True):
    """What a place means: workspace ids, and a path below them (``in:alice/scans/sub-01`` has ``sub-01``)."""

    workspaces: frozenset[int]
    path: str = ""


def bind_places(query: Query, resolve: Callable[[Place], frozenset[int] | PlaceScope]) -> Query:
    """Return ``query`` with every Place turned into a Within that an engine knows.

    ``resolve`` answers with workspace ids, or with a PlaceScope; no ids mean that nothing lies there. What it raises goes
    through. It must answer for the person who asks: a place they may not know of is as unknown as one that is not there.
    """
    match query:
        case Place():
            found = resolve(query)
            scope = found if isinstance(found, PlaceScope) else PlaceScope(found)
            return Within(scope.workspaces, scope.path.strip("/"))
        case Not(part):
            return Not(bind_places(part, resolve))
        case And(parts):
            return And(tuple(bind_places(part, resolve) for part in parts))
        case Or(parts):
            return Or(tuple(bind_places(part, resolve) for part in parts))
        case _:
            return query


def places(query: Query) -> tuple[Place, ...]:
    """Return every Place in ``query``, in order: for a caller that has to look them up before it can bind them."""
    match query:
        case Place():
            return (query,)
        case Not(part):
            return places(part)
        case And(parts) | Or(parts):
            return tuple(place for part in parts for place in places(part))
        case _:
            return ()
