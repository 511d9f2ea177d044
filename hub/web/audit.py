"""The audit trail, and what explains: who may reach what and why, who could, who did."""

from __future__ import annotations

from typing import Annotated, Final, Literal, cast

from litestar import Controller, get
from litestar.params import FromQuery, QueryParameter
from litestar.response import Stream

from hub.web.call import Call
from hub.web.problems import problems
from protocol.api import AccessEntry, AuditCheck, AuditEntry, Reacher, Why

JSONL: Final = "application/x-ndjson"
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Before = Annotated[int | None, QueryParameter(ge=0)]
Moment = Annotated[int | None, QueryParameter(ge=0, le=7_258_118_400_000_000)]
Form = Literal["json", "jsonl"]


class AuditRoutes(Controller):
    """Who did what to what, when."""

    tags = ("audit",)

    @get("/audit", operation_id="audit", responses=problems(400, 401, 403, 404))
    async def audit(
        self,
        request: Call,
        *,
        limit: Limit = 100,
        before: Before = None,
        workspace: FromQuery[str | None] = None,
        format: FromQuery[Form] = "json",  # noqa: A002  - the parameter's name is part of the contract
    ) -> list[AuditEntry]:
        """Read the audit trail as far as this person may, newest first; ``before`` is the id of the last one seen.

        ``format=jsonl`` gives all of it, oldest first, one JSON text a line, with what each line's chain is made of.
        """
        if format == "jsonl":
            lines = await request.services.audit.export(request.actor, workspace)
            # As a header, because the handler's own media type would win over the answer's.
            return cast("list[AuditEntry]", Stream(lines, headers={"content-type": JSONL}))
        return await request.services.audit.entries(request.actor, limit, before, workspace)

    @get("/audit/check", operation_id="check_audit", responses=problems(401, 403))
    async def check(self, request: Call) -> AuditCheck:
        """Check that every line of the audit trail is as it was written and none is missing."""
        return await request.services.audit.check(request.actor)


class WhyRoutes(Controller):
    """Who may reach what and why, who could, and who did."""

    tags = ("why",)

    @get("/why", operation_id="why", responses=problems(400, 401, 403, 404))
    async def why(self, request: Call, path: FromQuery[str], who: FromQuery[str] = "me") -> Why:
        """Explain whether somebody may reach a path: every link of the chain, and what the storage server answers."""
        return await request.services.explaining.why(request.actor, who, path)

    @get("/access", operation_id="access", responses=problems(400, 401, 403, 404))
    async def access(self, request: Call, path: FromQuery[str], at: Moment = None) -> list[Reacher]:
        """List who can reach a workspace, or could at ``at``, in Unix microseconds."""
        return await request.services.history.access(request.actor, path, at)

    @get("/accesses", operation_id="accesses", responses=problems(400, 401, 403, 404))
    async def accesses(
        self,
        request: Call,
        *,
        path: FromQuery[str],
        who: FromQuery[str | None] = None,
        limit: Limit = 100,
        before: Before = None,
    ) -> list[AccessEntry]:
        """List who read or wrote below a path, newest first, as the storage server itself reported it."""
        return await request.services.history.accesses(request.actor, path, who, limit, before)
