"""What was read out of a file, as terms of the embedded index.

Only files that something was read out of have any of it, so that all others cost nothing. Four fields:

- ``facts``: short statements to be looked up whole or by pattern, each with a letter before it that says what it is;
- ``numbers``: the values that are numbers, in terms that sort by name and then as the numbers do;
- ``values``: the words of each value that is text, each with the value's name before it, so that a phrase stays in one value;
- ``said`` and ``text``: words for those who search without a name: of tags and values, and of the content.

And two to count by: ``kind``, and ``tag`` as the storage has it, in its own case.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import tantivy

from protocol.fields import Fields
from search.words import fold, runs, spaced

READ, UNREADABLE = "r", "u"
"""Whole facts: it was looked into, and nothing went wrong, or something did."""
KIND, HAS, IS, TRUE, FALSE, TAG_NAME, TAG = "k", "h", "i", "t", "f", "n", "g"
"""What other facts begin with: the kind; the name of a value, ``name=text`` of one that is text, the name of a yes, of a no;
the name of a tag, its ``name=value``."""

_BIAS: Final = 1100
"""Makes the exponent of every double and of every 64-bit integer, -1073 to 1024, a positive number of three digits."""
_ZERO, _POSITIVE, _NEGATIVE = "n", "p", "l"
FIRST, LAST = "a", "z"
"""Sort before and behind every number of one name."""
_BITS: Final = 64


def add_schema(builder: tantivy.SchemaBuilder) -> None:
    """Add the fields above."""
    builder.add_text_field("facts", tokenizer_name="whitespace", index_option="basic")
    builder.add_text_field("numbers", tokenizer_name="raw", index_option="basic", fast=True)  # a range walks a fast one only
    builder.add_text_field("values", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("said", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("text", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("kind", tokenizer_name="raw", index_option="basic", fast=True)
    builder.add_text_field("tag", tokenizer_name="raw", index_option="basic", fast=True)


def add(found: tantivy.Document, fields: Fields) -> None:
    """Add what was read out of a file to its document."""
    facts = [UNREADABLE if fields.problem else READ]
    values: list[str] = []
    said: list[str] = []
    for name, value in fields.values.items():
        facts.append(HAS + name)
        if isinstance(value, bool):
            facts.append((TRUE if value else FALSE) + name)
        elif isinstance(value, str):
            facts.append(f"{IS}{name}={spaced(fold(value))}")
            words = runs(value)
            values.append(searched(words, f"{name}="))
            said.append(searched(words))
        elif math.isfinite(value):
            found.add_text("numbers", number_term(name, value))
    for name, value in fields.tags.items():
        facts += [TAG_NAME + spaced(fold(name)), TAG + spaced(fold(f"{name}={value}"))]
        said += [searched(runs(name)), searched(runs(value))]
        found.add_text("tag", f"{name}={value}")
    if fields.kind:
        facts.append(KIND + spaced(fold(fields.kind)))
        found.add_text("kind", fold(fields.kind))
    found.add_text("facts", " ".join(facts))
    _add_words(found, "values", values)
    _add_words(found, "said", said)
    if fields.text:
        found.add_text("text", searched(runs(fields.text)))


def _add_words(found: tantivy.Document, field: str, parts: Iterable[str]) -> None:
    if words := " / ".join(part for part in parts if part):
        found.add_text(field, words)


def searched(found: list[list[str]], before: str = "") -> str:
    """Return the words of a text cut into ``runs``, then each run of several words (``rawdata``) apart from all others."""
    together = [before + "".join(run) for run in found if len(run) > 1]
    return " / ".join([" ".join([before + part for run in found for part in run]), *together])


def number_prefix(name: str) -> str:
    """Return what the terms of all numbers of one name begin with, and no others do. Hexadecimal and z, as ranges need."""
    return f"{name.encode().hex()}z"


def number_term(name: str, number: float) -> str:
    """Return the term of a number; terms of one name sort as the numbers do, exactly, integers and floats mixed.

    A number is taken as 0.m times 2**e with 64 bits of m: enough for every double and every integer of 64 bits.
    ``number`` has to be finite; an integer of more bits counts as its float.
    """
    return number_prefix(name) + sortable(number)


def sortable(number: float) -> str:
    """Return the part of ``number_term`` that says the number."""
    if number == 0:
        return _ZERO
    size = abs(number)
    if isinstance(size, int) and size.bit_length() <= _BITS:
        exponent = size.bit_length()
        mantissa = size << (_BITS - exponent)
    else:
        fraction, exponent = math.frexp(size)
        mantissa = int(math.ldexp(fraction, _BITS))
    if number > 0:
        return f"{_POSITIVE}{exponent + _BIAS:03x}{mantissa:016x}"
    return f"{_NEGATIVE}{0xFFF - exponent - _BIAS:03x}{2**_BITS - 1 - mantissa:016x}"
