"""Wire a hub together: the one place that knows every part. Opens them in order, and closes them in the reverse one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib.metadata import version
from typing import Final

from litestar import Litestar
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from hub.db.database import Database
from hub.db.migrate import upgrade
from hub.db.tables import users
from hub.gateway.connections import Connections
from hub.home import hold, make_home, open_secret
from hub.services.accounts import Accounts
from hub.services.audit import Audit
from hub.services.credentials import Issuing
from hub.services.enrolment import Enrolment
from hub.services.health import HubHealth
from hub.services.hub_key import SecretKeys, open_hub_key
from hub.services.indexing import Indexing
from hub.services.ingest import Ingest
from hub.services.ports import Chance, Clock
from hub.services.reach import People
from hub.services.roots import Roots
from hub.services.searching import Searching
from hub.services.sharing import Sharing
from hub.services.workspaces import Workspaces
from hub.settings import Settings
from hub.web.call import Services
from hub.web.problems import add_headers, answer
from hub.web.routes import people_routes
from protocol.api import HubInfo
from protocol.errors import DiskFull, Unreachable, WioError
from protocol.identity import public_bytes, to_text
from protocol.names import MAX_ID
from search.tantivy import Tantivy

_LOG: Final = logging.getLogger("wio.hub")
_SECRET_BYTES: Final = 32
