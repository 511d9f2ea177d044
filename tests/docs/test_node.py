"""docs/node.md says what there is: settings and commands of the agent, in both directions."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from spoke_agent import settings
from spoke_agent.cli import app

NODE = Path(__file__).resolve().parents[2] / "docs" / "node.md"


def test_every_setting_of_the_agent_is_in_the_table_and_no_other() -> None:
    told = set(re.findall(r"^\| `(WIO_[A-Z_]+)` \|", NODE.read_text(), re.MULTILINE))
    there = {value for name, value in vars(settings).items() if name.endswith("_VARIABLE")}
    assert told == there


def test_every_command_of_the_agent_is_told_of() -> None:
    text = NODE.read_text()
    command = get_command(app)
    names = set(command.commands)  # type: ignore[attr-defined]  # a group of commands
    assert names
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()
    assert set(re.findall(r"wio-agent ([a-z]+)", text)) <= names
