"""What takes as long as it takes to list a whole root: surveys and verifications. They end when whoever asked is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from litestar import Controller, post
from litestar.params import FromPath, JSONBody

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import NewRoot, SurveyResult, Verification
from protocol.errors import Unreachable

T = TypeVar("T")
_STATUSES = (202, 400, 401, 403, 404, 409, 429, 502)


class ProofRoutes(Controller):
    """Counting and comparing from nothing."""

    tags = ("roots",)

    @post("/roots/{node:str}/{root:str}/survey", operation_id="survey_root", status_code=200, responses=problems(*_STATUSES))
    async def survey(self, request: Call, node: FromPath[str], root: FromPath[str]) -> SurveyResult:
        """Count what an import of a root would bring; changes nothing. Takes as long as listing it."""
        return await _while_asked(request, request.services.verifying.survey(request.actor, node, root))

    @post("/nodes/{node:str}/survey", operation_id="survey_node", status_code=200, responses=problems(*_STATUSES, 413))
    async def survey_place(self, request: Call, node: FromPath[str], data: JSONBody[NewRoot]) -> SurveyResult:
        """Count what an import would bring where no root is yet; makes nothing. The node in the address counts."""
        return await _while_asked(request, request.services.verifying.survey_place(request.actor, node, data))

    @post("/roots/{node:str}/{root:str}/verify", operation_id="verify_root", status_code=200, responses=problems(*_STATUSES))
    async def verify(self, request: Call, node: FromPath[str], root: FromPath[str]) -> Verification:
        """Compare storage, the node's knowledge and the catalogue, each added up from nothing. Takes as long as listing it."""
        return await _while_asked(request, request.services.verifying.verify(request.actor, node, root))


async def _while_asked(request: Call, work: Coroutine[Any, Any, T]) -> T:
    """Do work for as long as somebody waits for it; stop it when their connection is gone."""
    await request.body()
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Unreachable("Whoever asked for this is gone.")
        return await working
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Call) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
