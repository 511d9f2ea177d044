"""What anybody may ask without a token: which hub this is, and whether it is well."""

from __future__ import annotations

from litestar import Controller, get

from hub.web.call import OPEN, Call
from hub.web.problems import problems
from protocol.api import Health, HubInfo


class AboutRoutes(Controller):
    """The hub itself."""

    tags = ("hub",)

    @get("/hub", operation_id="hub", opt={OPEN: True}, security=[], responses=problems())
    async def hub(self, request: Call) -> HubInfo:
        """Say which hub this is and what its key is."""
        return request.services.info

    @get("/health", operation_id="health", opt={OPEN: True}, security=[], responses=problems())
    async def health(self, request: Call) -> Health:
        """Say whether the hub can do its work. The status is 200 either way; ``ok`` tells."""
        return await request.services.health.check()
