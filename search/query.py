"""The query language: text to a tree of conditions, or BadQuery with the column and what to write instead.

    query   = any { "OR" any }            binds loosest
    any     = not { ["AND"] not }         what stands side by side must all hold
    not     = ("-" | "NOT") not | item
    item    = "(" query ")" | quoted | field value | word
    field   = name (":" | ":" op | op)    op is one of > >= < <=
    value   = quoted | characters up to a space or parenthesis

docs/search.md has the table of all fields, which a test holds against this module. No I/O and no clock: the time is passed
in. ``search.tree`` says what each condition means.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from protocol.errors import BadQuery
from protocol.names import shown
from search.quantities import Bounds, dates, sizes
from search.tree import (
    And,
    Everything,
    Extension,
    Glob,
    Hidden,
    Kind,
    Measure,
    Not,
    Nothing,
    Or,
    Place,
    PlaceField,
    PlaceScope,
    Query,
    Range,
    Read,
    Scope,
    Tag,
    Text,
    Unreadable,
    Within,
    bind_places,
    places,
)
from search.values import is_value, of_value
from search.words import fold, runs

__all__ = [
    "FIELDS",
    "MAX_DEPTH",
    "MAX_ITEMS",
    "MAX_QUERY",
    "And",
    "Everything",
    "Extension",
    "Glob",
    "Hidden",
    "Measure",
    "Not",
    "Nothing",
    "Or",
    "Place",
    "PlaceField",
    "PlaceScope",
    "Query",
    "Range",
    "Scope",
    "Text",
    "Within",
    "bind_places",
    "parse",
    "places",
]

MAX_QUERY: Final = 1000
"""Characters in one query."""
MAX_ITEMS: Final = 100
"""Words, phrases and fields in one query."""
MAX_DEPTH: Final = 20
"""Parentheses and negations inside one another."""

# ------------------------------------------------------------------------------------------------------ fields


_EXTENSION = re.compile(r"[\w+-]+(?:\.[\w+-]+)*")


def _text(value: str, column: int, scope: Scope) -> Query:
    if "*" in value or "?" in value:
        return _glob(value, scope)
    found = runs(value)
    if not found:
        raise BadQuery(
            f"There is no letter or digit in {shown(value)} at column {column}.",
            todo=f"Put stars around it to find it inside a name: *{value}*",
            column=column,
        )
    run = "".join(found[0]) if len(found) == 1 and len(found[0]) > 1 else ""
    return Text(tuple(part for parts in found for part in parts), run, fold(value), scope)


def _glob(value: str, scope: Scope) -> Query:
    pattern = _pattern(value)
    return Everything() if pattern == "*" else Glob(pattern, Scope.PATH if "/" in pattern else scope)


def _plain(value: str, column: int) -> Query:
    return _text(value, column, Scope.NAME if "*" in value or "?" in value else Scope.ANYWHERE)


def _content(value: str, column: int) -> Query:
    if "*" in value or "?" in value:
        raise BadQuery("text: takes whole words, no patterns.", todo="Leave out * and ?", column=column)
    return _text(value, column, Scope.CONTENT)


def _pattern(value: str) -> str:
    return re.sub(r"\*+", "*", fold(value))


def _extension(value: str, column: int) -> Query:
    wanted = fold(value).removeprefix(".")
    if wanted and not _EXTENSION.fullmatch(wanted):
        raise BadQuery(
            f"{shown(value)} is not an extension.",
            todo="Write ext:nii or ext:nii.gz; ext:. finds files without one.",
            column=column,
        )
    return Extension(wanted)


def _is(value: str, column: int) -> Query:
    match fold(value):
        case "empty":
            return Range(Measure.SIZE, 0, 0)
        case "hidden":
            return Hidden()
        case "read":
            return Read()
        case "unreadable":
            return Unreadable()
        case _:
            raise BadQuery(
                f"is: does not know {shown(value)}.",
                todo="Write is:empty, is:hidden, is:read or is:unreadable.",
                column=column,
            )


def _place(field: PlaceField) -> Callable[[str, int], Query]:
    return lambda value, column: Place(field, value, column)


_WORDED: Final[dict[str, Callable[[str, int], Query]]] = {
    "name": lambda value, column: _text(value, column, Scope.NAME),
    "path": lambda value, column: _text(value, column, Scope.PATH),
    "ext": _extension,
    "is": _is,
    "type": lambda value, _: Kind(_pattern(value)),
    "tag": lambda value, _: Tag(_pattern(value)),
    "text": _content,
    **{field.value: _place(field) for field in PlaceField},
}
"""Fields whose value is a word."""

_COMPARED: Final = {Measure.SIZE: sizes, Measure.MODIFIED: dates}
"""Fields whose value is a quantity."""

FIELDS: Final = (*_WORDED, *_COMPARED)
"""All fields with a name of their own, for people. A name with a dot in it is that of a value (``search.values``)."""


def _bounded(measure: Measure, bounds: Bounds) -> Query:
    low, high = bounds
    if high is not None and high < max(low or 0, 0):
        return Nothing()
    return Range(measure, low, high)


# ------------------------------------------------------------------------------------------------------ reading


class _Kind(enum.Enum):
    OPEN = "("
    CLOSE = ")"
    MINUS = "-"
    WORD = "word"
    QUOTED = "quoted"
    FIELD = "field"


class _Token(NamedTuple):
    kind: _Kind
    text: str
    at: int
    """Index of its first character; the column is one more."""
    field: str = ""
    operator: str = ""
    value_at: int = 0


_FIELD = re.compile(r"([^\W\d][\w.]*)(:(?:>=|<=|>|<)?|>=|<=|>|<)")
_WORD = re.compile(r"[^\s()\"]+")


def parse(text: str, now: int) -> Query:
    """Read a query. ``now`` is Unix microseconds, for ages such as ``7d``. An empty text is Everything.

    Raises BadQuery with the column, counted from 1, where something else was expected.
    """
    if len(text) > MAX_QUERY:
        raise BadQuery(
            f"The query has {len(text)} characters; {MAX_QUERY} are allowed.", todo="Make it shorter.", column=MAX_QUERY + 1
        )
    return _Parser(list(_tokens(text)), len(text), now).read()


def _tokens(text: str) -> Iterable[_Token]:
    at = 0
    while at < len(text):
        character = text[at]
        if character.isspace():
            at += 1
            continue
        if character in "()-":
            token = _Token(_Kind(character), character, at)
            end = at + 1
        elif character == '"':
            value, end = _quoted(text, at)
            token = _Token(_Kind.QUOTED, value, at)
        elif field := _FIELD.match(text, at):
            value, end = _value(text, field.end())
            name, operator = field.groups()
            token = _Token(_Kind.FIELD, value, at, fold(name), operator.removeprefix(":"), field.end())
        else:
            value, end = _value(text, at)
            token = _Token(_Kind.WORD, value, at)
        yield token
        at = end


def _quoted(text: str, at: int) -> tuple[str, int]:
    end = text.find('"', at + 1)
    if end < 0:
        raise BadQuery(
            f"The quotation mark at column {at + 1} is never closed.", todo='Write another " after it.', column=at + 1
        )
    return text[at + 1 : end], end + 1


def _value(text: str, at: int) -> tuple[str, int]:
    if text[at : at + 1] == '"':
        return _quoted(text, at)
    found = _WORD.match(text, at)
    return (found.group(), found.end()) if found else ("", at)


class _Parser:
    """Recursive descent over the tokens of one query; every method leaves ``_next`` behind what it has read."""

    def __init__(self, tokens: list[_Token], length: int, now: int) -> None:
        items = [token for token in tokens if token.kind in {_Kind.WORD, _Kind.QUOTED, _Kind.FIELD}]
        if len(items) > MAX_ITEMS:
            raise BadQuery(
                f"The query has {len(items)} words and fields; {MAX_ITEMS} are allowed.",
                todo="Make it shorter.",
                column=items[MAX_ITEMS].at + 1,
            )
        self._tokens = tokens
        self._length = length
        self._now = now
        self._next = 0
        self._depth = 0

    def read(self) -> Query:
        if not self._tokens:
            return Everything()
        query = self._any()
        if (token := self._peek()) is not None:
            raise self._unexpected(token)
        return query

    def _peek(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _is_word(self, word: str) -> bool:
        token = self._peek()
        return token is not None and token.kind is _Kind.WORD and token.text == word

    def _any(self) -> Query:
        parts = [self._all()]
        while self._is_word("OR"):
            self._next += 1
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _all(self) -> Query:
        parts = [self._not()]
        while (token := self._peek()) is not None and token.kind is not _Kind.CLOSE and not self._is_word("OR"):
            if self._is_word("AND"):
                self._next += 1
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Query:
        token = self._peek()
        if token is not None and (token.kind is _Kind.MINUS or self._is_word("NOT")):
            self._next += 1
            self._deeper(token)
            part = self._not()
            self._depth -= 1
            return Not(part)
        return self._item()

    def _deeper(self, token: _Token) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadQuery(f"The query is nested more than {MAX_DEPTH} deep.", todo="Make it simpler.", column=token.at + 1)

    def _item(self) -> Query:
        token = self._peek()
        if token is None:
            raise BadQuery("The query ends where a word was expected.", todo="Add a word.", column=self._length + 1)
        if token.kind in {_Kind.CLOSE, _Kind.MINUS} or (token.kind is _Kind.WORD and token.text in {"OR", "AND"}):
            raise self._unexpected(token)
        self._next += 1
        if token.kind is _Kind.OPEN:
            return self._group(token)
        if token.kind is _Kind.FIELD:
            return self._field(token)
        if token.kind is _Kind.QUOTED:
            return _text_of_quoted(token)
        return _plain(token.text, token.at + 1)

    def _group(self, opening: _Token) -> Query:
        self._deeper(opening)
        query = self._any()
        self._depth -= 1
        closing = self._peek()
        if closing is None:
            raise BadQuery(
                f"The parenthesis at column {opening.at + 1} is never closed.",
                todo="Write a ) after it.",
                column=opening.at + 1,
            )
        self._next += 1
        return query

    def _field(self, token: _Token) -> Query:
        column = token.value_at + 1
        worded = _WORDED.get(token.field)
        named = is_value(token.field)
        if worded is None and token.field not in _COMPARED and not named:
            raise _unknown(token)
        if not token.text.strip():
            raise BadQuery(
                f"{token.field}{token.operator or ':'} has no value.", todo="Write the value right behind it.", column=column
            )
        if named:
            return of_value(token.field, token.text, token.operator, column)
        if worded is None:
            measure = Measure(token.field)
            return _bounded(measure, _COMPARED[measure](token.text, token.operator, column, self._now))
        if token.operator:
            raise BadQuery(
                f"{token.field} cannot be compared with {token.operator}.",
                todo=f"Write {token.field}:{token.text}",
                column=token.at + 1 + len(token.field),
            )
        return worded(token.text, column)

    def _unexpected(self, token: _Token) -> BadQuery:
        column = token.at + 1
        if token.kind is _Kind.CLOSE:
            return BadQuery(
                f"There is a ) at column {column} where a word was expected, or that was never opened.",
                todo='Remove it, or put it in quotation marks: ")"',
                column=column,
            )
        return BadQuery(
            f"There is {shown(token.text)} at column {column} where a word was expected.",
            todo=f'Put a word before it, or put it in quotation marks: "{token.text}"',
            column=column,
        )


def _text_of_quoted(token: _Token) -> Query:
    """Read a phrase: stars and question marks in it are nothing special."""
    column = token.at + 1
    if not runs(token.text):
        raise BadQuery(
            f"There is no letter or digit in the quotation marks at column {column}.",
            todo="Use * to find other characters inside a name: *&*",
            column=column,
        )
    return _text(token.text.replace("*", " ").replace("?", " "), column, Scope.ANYWHERE)


def _unknown(token: _Token) -> BadQuery:
    near = difflib.get_close_matches(token.field, FIELDS, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]}:? " if near else ""
    return BadQuery(
        f"There is no field {shown(token.field)}.",
        todo=f"{hint}The fields are {', '.join(FIELDS)}, and values read out of files, such as image.width. "
        "To find the text itself, put it in quotation marks.",
        column=token.at + 1,
    )
