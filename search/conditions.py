"""A query tree as conditions of the embedded index.

A text is found at a *level*: 1 in what was read out of a file, 2 in the folders above it, 3 in its name, 4 where the name is
that very text. ``at`` gives the condition "found at this level or a higher one"; the engine asks for level 4, then 3 without
4, then 2 without 3, and so ranks without any statistics of the corpus. Level 0 is not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import tantivy

from protocol.errors import BadQuery
from search import facts
from search.fields import END, START, path_term
from search.tree import (
    And,
    Everything,
    Extension,
    Glob,
    HasValue,
    Hidden,
    Kind,
    Not,
    Nothing,
    Or,
    Place,
    Query,
    Range,
    Read,
    Scope,
    Tag,
    Text,
    Unreadable,
    ValueGlob,
    ValueRange,
    ValueTruth,
    ValueWords,
    Within,
)
from search.words import spaced

INSIDE, IN_PATH, IN_NAME, WHOLE = 1, 2, 3, 4
LEVELS: Final = (WHOLE, IN_NAME, IN_PATH, INSIDE)

_THREE: Final = 3
_MEASURES: Final = {"size": "size", "modified": "mtime"}
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")
"""What a regular expression reads as syntax."""

Condition = tantivy.Query


def ranks(query: Query) -> bool:
    """Say whether ``query`` holds anything that can be found at different levels."""
    match query:
        case Text() | Glob():
            return True
        case And(parts) | Or(parts):
            return any(ranks(part) for part in parts)
        case _:
            return False


def every(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that all of these hold."""
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, condition) for condition in conditions])


def either(conditions: Iterable[Condition]) -> Condition:
    """Return the condition that one of these holds at least."""
    return tantivy.Query.boolean_query([(tantivy.Occur.Should, condition) for condition in conditions])


def without(condition: Condition, unwanted: Condition) -> Condition:
    """Return the condition that the first holds and the second does not."""
    return tantivy.Query.boolean_query([(tantivy.Occur.Must, condition), (tantivy.Occur.MustNot, unwanted)])


class Conditions:
    """Turns query trees into conditions over one schema."""

    def __init__(self, schema: tantivy.Schema) -> None:
        self._schema = schema
        self._reader = tantivy.Index(schema)  # in memory and empty: it reads the text form of a condition

    def at(self, query: Query, level: int) -> Condition:
        """Return the condition that a file fits ``query`` at ``level`` or higher; INSIDE is all that fit.

        Raises BadQuery for a pattern that is too complicated.
        """
        match query:
            case Text():
                return self._text(query, level)
            case Glob():
                highest = IN_PATH if query.scope is Scope.PATH else IN_NAME
                return self._glob(query) if level <= highest else tantivy.Query.empty_query()
            case And(parts):
                return every(self.at(part, level) for part in parts)
            case Or(parts):
                return either(self.at(part, level) for part in parts)
            case Not(part):
                return without(tantivy.Query.all_query(), self.at(part, INSIDE))
            case _:
                return self._filter(query)

    def term(self, field: str, value: str | int) -> Condition:
        """Return the condition that a field holds exactly this."""
        return tantivy.Query.term_query(self._schema, field, value, index_option="basic")

    def ids(self, field: str, values: Iterable[int]) -> Condition:
        """Return the condition that a field holds one of these; none of them fits nothing."""
        return tantivy.Query.term_set_query(self._schema, field, sorted(values))

    def number(self, field: str, low: int | None, high: int | None) -> Condition:
        """Return the condition that a number lies between two bounds, both included."""
        if low is None and high is None:
            return tantivy.Query.all_query()
        return tantivy.Query.range_query(self._schema, field, tantivy.FieldType.Unsigned, low, high)

    def between(self, field: str, low: str, high: str, *, above: bool = False, below: bool = False) -> Condition:
        """Return the condition that a text field has a term between two, both included unless ``above`` or ``below``.

        Only the text form of a condition can say it, so bounds have to be of letters and digits. ``*`` is unbounded.
        """
        return self._reader.parse_query(f"{field}:{'{' if above else '['}{low} TO {high}{'}' if below else ']'}", [])

    def _filter(self, query: Query) -> Condition:  # noqa: PLR0911 - one line for each kind of condition
        match query:
            case Range(measure, low, high):
                return self.number(_MEASURES[measure], low, high)
            case Extension(value):
                return self.term("ends", value)
            case Hidden():
                return self.term("hidden", 1)
            case Within(workspaces, path):
                lies = self.ids("workspace", workspaces)
                return every([lies, either([self.term("folder", path), self.term("path", path_term(path))])]) if path else lies
            case Everything():
                return tantivy.Query.all_query()
            case Nothing():
                return tantivy.Query.empty_query()
            case Place():
                raise ValueError(f"{query.field.value}: has to be bound to workspaces before an engine is asked")
            case _:
                return self._read_out(query)

    def _read_out(self, query: Query) -> Condition:  # noqa: PLR0911 - one line for each kind of condition
        match query:
            case Kind(pattern):
                return self._pattern("facts", facts.KIND, pattern)
            case Tag(pattern):
                return self._pattern("facts", facts.TAG if "=" in pattern else facts.TAG_NAME, pattern)
            case HasValue(name):
                return self.term("facts", facts.HAS + name)
            case ValueWords(name, words, run):
                return self._words("values", [f"{name}={word}" for word in words], f"{name}={run}" if run else "")
            case ValueGlob(name, pattern):
                return self._pattern("facts", f"{facts.IS}{name}=", pattern)
            case ValueRange():
                return self._values(query)
            case ValueTruth(name, truth):
                return self.term("facts", (facts.TRUE if truth else facts.FALSE) + name)
            case Read():
                return self.term("facts", facts.READ)
            case Unreadable():
                return self.term("facts", facts.UNREADABLE)
            case _:  # pragma: no cover - ``at`` takes all others
                raise TypeError(type(query).__name__)

    def _text(self, text: Text, level: int) -> Condition:
        fields: tuple[str, ...] = ()
        if text.scope is not Scope.CONTENT:
            fields = ("words",) if level <= IN_PATH and text.scope is not Scope.NAME else ("name_words",)
        if level == INSIDE:
            fields += {Scope.ANYWHERE: ("said", "text"), Scope.CONTENT: ("text",)}.get(text.scope, ())
        found = either(self._words(field, text.words, text.run) for field in fields)
        if level < WHOLE:
            return found
        whole = spaced(text.text)
        return every([found, either([self.term("name", whole), self.term("stem", whole)])])

    def _words(self, field: str, words: Sequence[str], run: str) -> Condition:
        found = self._phrase(field, list(enumerate(words)))
        return either([found, self.term(field, run)]) if run else found

    def _values(self, query: ValueRange) -> Condition:
        low = facts.FIRST if query.low is None else facts.sortable(query.low)
        high = facts.LAST if query.high is None else facts.sortable(query.high)
        prefix = facts.number_prefix(query.name)
        return self.between("numbers", prefix + low, prefix + high, above=query.above, below=query.below)

    def _pattern(self, field: str, before: str, pattern: str) -> Condition:
        """Return the condition that a field has a term of these characters and then a pattern."""
        wanted = before + spaced(pattern)
        if "*" not in pattern and "?" not in pattern:
            return self.term(field, wanted)
        return self._regex(field, _regex_of(wanted))

    def _phrase(self, field: str, terms: Sequence[tuple[int, str]]) -> Condition:
        if len(terms) == 1:
            return self.term(field, terms[0][1])
        return tantivy.Query.phrase_query(self._schema, field, list(terms))

    def _regex(self, field: str, regex: str) -> Condition:
        try:
            return tantivy.Query.regex_query(self._schema, field, regex)
        except ValueError as error:
            raise BadQuery("A pattern with * and ? is too complicated.", todo="Use fewer stars.") from error

    def _glob(self, glob: Glob) -> Condition:
        pattern = spaced(glob.pattern)
        if glob.scope is Scope.PATH:
            return self._regex("folded", _regex_of(pattern))
        if "*" not in pattern and "?" not in pattern:
            return self.term("name", pattern)
        pieces = (START + pattern + END).split("*")
        found = [condition for piece in pieces for condition in self._piece(piece)]
        # Pieces are looked for one by one. That is exact for one piece, and for a beginning and an end that do not share
        # characters; else the pattern itself has the last word, which walks all different names (0.2 s in a million).
        solid = all(_covered(piece) for piece in pieces)
        bare = [piece.strip(START + END) for piece in pieces]
        if not solid or sum(1 for piece in bare[1:-1] if piece) > (0 if bare[0] or bare[-1] else 1):
            found.append(self._regex("name", _regex_of(pattern)))
        elif len(pieces) > 1:
            found.append(self.number("length", sum(map(len, bare)), None))
        return every(found)

    def _piece(self, piece: str) -> list[Condition]:
        """Return conditions that hold for every name with this piece in it; exact where ``_covered``."""
        terms = [(at, piece[at : at + _THREE]) for at in range(len(piece) - _THREE + 1) if "?" not in piece[at : at + _THREE]]
        if terms:
            return [self._phrase("threes", terms)]
        if not piece.strip("?" + START + END):
            return []
        if "?" in piece:
            return []
        literal = _SPECIAL.sub(r"\\\g<0>", piece)
        if len(piece) == 1:  # it has something on both sides, START or END at least
            return [self._regex("threes", f".{literal}.")]
        return [self._regex("threes", f".{literal}" if piece.endswith(END) else f"{literal}.")]


def _covered(piece: str) -> bool:
    """Say whether the conditions of ``_piece`` say everything about this piece."""
    if "?" not in piece or not piece.strip("?"):
        return True
    return not piece.startswith("?") and not piece.endswith("?") and all(len(run) >= _THREE for run in piece.split("?") if run)


def _regex_of(pattern: str) -> str:
    """Return a pattern of ``*`` and ``?`` as a regular expression over whole terms."""
    return "".join({"*": ".*", "?": "."}.get(c) or _SPECIAL.sub(r"\\\g<0>", c) for c in pattern)
