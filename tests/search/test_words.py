"""How names are cut into words, and what their extension is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search import fields
from search.words import _parts, extension, fold, name_of, runs, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IMG_2034-rawData.nii", ["img", "2034", "raw", "data", "nii"]),
        ("HTTPServer", ["http", "server"]),
        ("sub01T1w", ["sub", "01", "t", "1", "w"]),
        ("ABC", ["abc"]),
        ("aB", ["a", "b"]),
        ("Straße", ["strasse"]),
        ("ÜberÄrger", ["über", "ärger"]),
        ("e\u0301tude", ["étude"]),
        ("日本2024", ["日本", "2024"]),
        ("ЯМар", ["я", "мар"]),
        ("", []),
        ("+-/ _", []),
    ],
)
def test_a_word_ends_at_separators_digits_and_capitals(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text(st.sampled_from("abZY019"), min_size=1, max_size=12))
def test_every_script_is_cut_by_the_same_rule(run: str) -> None:
    assert [part.lower() for part in _parts(run)] == runs(run)[0]


@given(st.text(max_size=20))
def test_composition_and_case_do_not_matter_and_no_letter_is_lost(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
    assert fold(fold(text)) == fold(text)
    joined = "".join(words(text))
    assert joined == "" or all(c.isalnum() or unicodedata.combining(c) or c == "_" or not c.isascii() for c in joined)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.TXT", "txt"),
        ("a.nii.gz", "nii.gz"),
        ("a.tar.zst", "tar.zst"),
        ("a.gz", "gz"),
        ("v1.2.gz", "gz"),
        (".bashrc", ""),
        (".nii.gz", "gz"),
        ("..gz", ""),
        ("a.", ""),
        ("a", ""),
        ("", ""),
        ("report.final version", ""),
        ("a." + "x" * 16, "x" * 16),
        ("a." + "x" * 17, ""),
        ("a.c++", "c++"),
        ("a.日本", "日本"),
    ],
)
def test_an_extension_is_what_people_take_for_one(name: str, expected: str) -> None:
    assert extension(name) == expected


def test_a_name_is_the_last_part_of_a_path() -> None:
    assert [name_of(p) for p in ("a/b.txt", "b.txt", "a/", "")] == ["b.txt", "b.txt", "", ""]


_part = st.text(alphabet="aAzZ09._- /\u0338\u0301éÉßİŉ中\u0345Σς", min_size=1, max_size=14)


@given(_part)
def test_a_path_is_indexed_as_its_folder_and_its_name_are(path: str) -> None:
    name = name_of(path)
    above = fields._above(path[: len(path) - len(name)])  # kept apart for speed: it must make no difference
    assert above.folded + fold(name) == fold(path)
    assert [*above.runs, *runs(name)] == runs(path)
    assert (above.hidden or name.startswith(".")) == fields.is_hidden(path)
    if name:
        assert [*above.folders, path.lstrip("/")] == fields.folders(path)
