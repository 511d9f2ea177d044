"""docs/tools.md: what it shows works, word for word."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.federation import BIN, run
from tests.tools.conftest import World

pytestmark = pytest.mark.real

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "tools.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("program", PYTHON, ids=range(len(PYTHON)))
def test_its_programs_run(world: World, program: str) -> None:
    environment = world.environment(world.alice)
    said = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_its_commands_run_one_after_the_other(world: World) -> None:
    assert len(COMMANDS) > 5
    for line in COMMANDS:
        program, *words = shlex.split(line)
        assert program == "wio"
        run([BIN / "wio", *words], world.environment(world.alice)).good()
