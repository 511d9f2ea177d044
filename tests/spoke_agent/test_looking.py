"""What the agent does when its storage server was started anew."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from spoke_agent import agent as module
from spoke_agent.access.applying import Swept
from spoke_agent.agent import Agent


async def test_a_start_of_the_server_is_followed_by_one_more_scan_for_another_start_that_looks_like_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a server was to report is lost when it ends; and it says to the second only when it was started."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(module, "TWICE_S", 0.05)
    looks = scans = 0
    begun: list[int] = []

    async def look_once() -> Swept | None:
        nonlocal looks
        looks += 1
        return Swept() if looks == 3 else None

    def request_all() -> None:
        nonlocal scans
        scans += 1
        begun.append(looks)

    made: Any = object.__new__(Agent)
    made.access, made.schedule = SimpleNamespace(look_once=look_once), SimpleNamespace(request_all=request_all)
    looking = asyncio.create_task(made._look())
    try:
        async with asyncio.timeout(10):
            while scans < 2:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0)
        seen = looks
        while looks < seen + 100:  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
    assert begun[0] == 3, "at once"
    assert len(begun) == 2, "once more, and then no more"
