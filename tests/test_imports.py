"""What import-linter cannot say: the whole list of what the contract between the parts may stand on."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import protocol

_MODULES = sorted(Path(protocol.__file__).parent.glob("*.py"))
_NO_IO = {"asyncio", "socket", "ssl", "subprocess", "threading", "time", "datetime", "random", "secrets", "pathlib", "os", "io"}


@pytest.mark.parametrize("module", _MODULES, ids=lambda path: path.stem)
def test_protocol_stands_on_the_standard_library_msgspec_and_cryptography_alone(module: Path) -> None:
    allowed = (set(sys.stdlib_module_names) - _NO_IO) | {"msgspec", "cryptography", "protocol"}
    imported = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide what they name"
            imported.add((node.module or "").partition(".")[0])
    assert imported <= allowed
