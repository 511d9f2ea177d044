"""What lists a whole root: one at a time in a place, and no longer than somebody waits for it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from protocol.messages import GiveUp, Verify


async def test_one_at_a_time_and_no_longer_than_somebody_waits(hub: Any, joined: Any) -> None:
    owner = await hub.register("prover")
    async with joined(hub, owner, "proof1") as node:
        root = {"node": "proof1", "name": "data", "kind": "private", "bucket": "lab", "accept_visible_names": True}
        assert (await hub.http.post("/roots", json=root, headers=owner)).status_code == 201
        said: list[Any] = []
        carries_out = node._answer

        async def answer(message: Any) -> None:
            said.append(message)
            if not isinstance(message, Verify | GiveUp):
                await carries_out(message)

        async def heard(kind: type[Any]) -> None:
            async with asyncio.timeout(10):
                while not any(isinstance(message, kind) for message in said):  # noqa: ASYNC110 - it comes over a socket
                    await asyncio.sleep(0.01)

        node._answer = answer
        async with httpx.AsyncClient(base_url=str(hub.http.base_url)) as impatient:
            asking = asyncio.create_task(impatient.post("/roots/proof1/data/verify", headers=owner))
            await heard(Verify)
            second = await hub.http.post("/roots/proof1/data/verify", headers=owner)
            assert (second.status_code, second.json()["code"]) == (409, "conflict")
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        await heard(GiveUp)
        asked = next(message for message in said if isinstance(message, Verify))
        assert next(message for message in said if isinstance(message, GiveUp)).request == asked.request
        node._answer = carries_out
        assert (await hub.http.post("/roots/proof1/data/verify", headers=owner)).json()["equal"]
