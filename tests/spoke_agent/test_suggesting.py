"""What is proposed for a tree, and what is said of a plan that does not fit it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import BadInput
from protocol.plan import Plan, PlannedRoot, read
from spoke_agent.storage.posix.exports import Export, Exports
from spoke_agent.suggesting import check_against, suggest, write

PROGRAM = Path(sys.executable).with_name("wio-agent")


def put(top: Path, *keys: str) -> None:
    for key in keys:
        path = top / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)


def planned(top: Path, **users: str) -> Plan:
    return read("\n".join(write([suggest(Export("lab", str(top)), named=lambda _: users.get("all", "root"))], "lab3")))


def folders(plan: Plan) -> dict[str, str]:
    return {one.folder: one.name for root in plan.roots for one in root.workspaces}


def test_a_folder_for_each_person_or_project_becomes_a_workspace(tmp_path: Path) -> None:
    put(tmp_path, "mri/a", "eeg/deep/b", "raw data/c", "README")
    assert folders(planned(tmp_path)) == {"mri/": "mri", "eeg/": "eeg", "raw data/": "raw-data"}


def test_folders_that_hold_those_are_looked_into(tmp_path: Path) -> None:
    put(tmp_path, "home/alice/a", "home/bob/b", "projects/mri/c", "projects/eeg/d", "software/x/y", "data/only/z")
    assert set(folders(planned(tmp_path))) == {
        "home/alice/",
        "home/bob/",
        "projects/mri/",
        "projects/eeg/",
        "software/",
        "data/",
    }


def test_what_is_one_whole_is_not_taken_apart(tmp_path: Path) -> None:
    put(tmp_path, "data/sub-01/a", "data/sub-02/b", "data/dataset_description.json")
    assert set(folders(planned(tmp_path))) == {"data/"}


def test_names_become_names_of_wios_and_stay_apart(tmp_path: Path) -> None:
    put(tmp_path, "Zürich/a", "zurich/b", "Straße 5/c", "--x--/d", "日本/e", "public/f", "x" * 60 + "/g")
    plan = planned(tmp_path)
    names = list(folders(plan).values())
    assert len(set(names)) == 7
    assert folders(plan)["Straße 5/"] == "strasse-5"
    assert folders(plan)["public/"] == "ws-public"


def test_what_is_proposed_says_how_much_lies_there_and_whose_it_seems(tmp_path: Path) -> None:
    put(tmp_path, "home/alice/a", "home/alice/b/c", "home/bob/d", "mri/e", "loose")
    text = "\n".join(write([suggest(Export("lab", str(tmp_path)), named=lambda _: "carol")], ""))
    assert "# 2 files, 20 bytes, newest of 20" in text
    assert "1 files lie in none of the folders" in text
    assert '# owner = "alice"' in text
    assert '# owner = "carol"' in text
    assert "owner" not in text.replace("# owner", "")
    with pytest.raises(BadInput):
        read(text)  # the node's name is missing, and has to be filled in


def test_what_cannot_be_a_workspace_is_there_as_a_comment_with_its_reason(tmp_path: Path) -> None:
    put(tmp_path, "we?rd/a", "good/b", "evil\n[[root]]/c", 'quo"te\\/d')
    (tmp_path / "out").symlink_to("/etc")
    os.mkfifo(tmp_path / "good/fifo")
    lines = list(write([suggest(Export("lab", str(tmp_path)))], "lab3"))
    plan = read("\n".join(lines))
    assert len(plan.roots) == 1
    assert set(folders(plan)) == {"good/", 'quo"te\\/'} - {'quo"te\\/'}
    said = "\n".join(lines)
    assert "reads as syntax" in said
    assert "NOT SERVED: 1 links that lead out of the tree" in said
    assert "NOT SERVED: 1 FIFOs" in said
    assert all(line.isprintable() for line in lines)


def test_several_directories_become_several_roots(tmp_path: Path) -> None:
    put(tmp_path, "one/a/x", "two/b/y")
    found = [suggest(Export(name, str(tmp_path / name))) for name in ("one", "two")]
    assert [(root.name, root.bucket) for root in read("\n".join(write(found, "n1"))).roots] == [("one", "one"), ("two", "two")]


def test_an_empty_directory_proposes_a_root_and_says_so(tmp_path: Path) -> None:
    lines = list(write([suggest(Export("lab", str(tmp_path)))], "lab3"))
    assert "There is no folder in it" in lines[-1]
    assert read("\n".join(lines)).roots[0].workspaces == ()


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    put(tmp_path, "home/alice/a", "home/bob/b")
    before = {str(path): path.lstat().st_ctime_ns for path in tmp_path.rglob("*")}
    planned(tmp_path)
    assert {str(path): path.lstat().st_ctime_ns for path in tmp_path.rglob("*")} == before


def test_a_plan_that_does_not_fit_the_tree_is_told_apart_folder_by_folder(tmp_path: Path) -> None:
    put(tmp_path, "here/a", "file")
    (tmp_path / "link").symlink_to("here")
    text = 'node = "lab3"\n[[root]]\nname = "lab"\nbucket = "lab"\nkind = "unmanaged-private"\n'
    for number, folder in enumerate(("here/", "gone/", "file/", "link/", "meta/")):
        text += f'[[root.workspace]]\nname = "w{number}"\nfolder = "{folder}"\n'
    text += '[[root]]\nname = "other"\nbucket = "nowhere"\nkind = "unmanaged-private"\n'
    wrong = check_against(read(text), Exports([Export("lab", str(tmp_path))]))
    assert len(wrong) == 5
    for number, said in enumerate(("not there", "a file", "a link", "not served", "not served by this node")):
        assert said in wrong[number]


def test_a_plan_that_fits_is_not_complained_about(tmp_path: Path) -> None:
    put(tmp_path, "home/alice/a", "home/bob/b", "mri/c")
    plan = planned(tmp_path)
    assert isinstance(plan.roots[0], PlannedRoot)
    assert check_against(plan, Exports([Export("lab", str(tmp_path))])) == []


def test_the_command_proposes_without_having_joined(tmp_path: Path) -> None:
    put(tmp_path, "lab/mri/a")
    done = subprocess.run(
        [PROGRAM, "roots", "suggest", "--directory", str(tmp_path / "lab"), "--state", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert folders(read(done.stdout.replace('node = ""', 'node = "lab3"'))) == {"mri/": "mri"}
    nowhere = [PROGRAM, "roots", "suggest", "--directory", str(tmp_path / "nothing"), "--state", str(tmp_path / "state")]
    done = subprocess.run(nowhere, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be looked through" in done.stderr
