from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.spoke_agent.storage.posix.trees import Seen


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Seen]:
    one = Seen(tmp_path)
    yield one
    await one.tree.close()
