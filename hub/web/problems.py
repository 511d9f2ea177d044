"""How an error becomes an HTTP answer: the one map, and the headers that every answer carries."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Message, Scope
from sqlalchemy.exc import DBAPIError

from protocol.errors import BadInput, DiskFull, Internal, NotFound, NotSignedIn, Problem, Unreachable, WioError
from protocol.names import shown

_LOG: Final = logging.getLogger("wio.hub.web")
_JSON: Final = msgspec.json.Encoder()

_MISSING: Final = re.compile(r"Missing required query parameter '(\w+)'")
"""How the framework begins its sentence about a parameter that is not there."""

_HEADERS: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""Answers are JSON for one person: never kept, never guessed at, never framed, never read by another site's page."""

_ABOUT: Final = {
    202: "Accepted, but not yet enforced",
    400: "What was asked for cannot be",
    401: "No token, or one that is no longer good",
    403: "Refused by a rule",
    404: "There is no such thing, or none that this person may know of",
    409: "It collides with something that is there",
    413: "The body is larger than any request of this API",
    429: "Too many tries in a short time",
    500: "A fault of the hub's own",
    502: "The storage server said no to its agent",
    503: "A part that is needed does not answer",
    507: "No space left",
}


def problems(*statuses: int) -> Mapping[int, ResponseSpec]:
    """Return the part of a handler's description that names the errors it can answer with; 500 and 503 always can."""
    known = sorted({*statuses, 500, 503, 507})
    return {s: ResponseSpec(Problem, generate_examples=False, description=_ABOUT[s]) for s in known}


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Turn any exception into its answer: the one map from errors to HTTP. What nobody expected is logged, not told."""
    status, problem, headers = _read(request, error)
    if isinstance(error, NotSignedIn):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(_JSON.encode(problem), status_code=status, media_type=MediaType.JSON, headers=headers)


def _read(request: Request[Any, Any, Any], error: Exception) -> tuple[int, Problem, dict[str, str]]:
    if isinstance(error, WioError):
        if isinstance(error, Internal):
            _LOG.error("%s %s failed: %s", request.method, shown(request.url.path), error, exc_info=error)
        return error.status, error.problem, {}
    if isinstance(error, ValidationException):
        return 400, BadInput(_fields(error)).problem, {}
    if isinstance(error, HTTPException) and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return error.status_code, _of_framework(request, error).problem, dict(error.headers or {})
    told = _of_database(error)
    level = logging.WARNING if told.retry else logging.ERROR
    _LOG.log(level, "%s %s failed: %s", request.method, shown(request.url.path), type(error).__name__, exc_info=error)
    return told.status, told.problem, {}


def _of_framework(request: Request[Any, Any, Any], error: HTTPException) -> WioError:
    path = shown(request.url.path)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return NotFound(f"There is nothing at {path}.", todo="GET /api/v1/openapi.json lists what there is.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return BadInput(f"{path} does not take {request.method}.", todo="GET /api/v1/openapi.json lists what it takes.")
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return BadInput("The body is larger than any request of this API.")
    return BadInput("The request cannot be read.")


def _fields(error: ValidationException) -> str:
    """Name what is wrong with which parameter; the framework's own sentence repeats the whole address."""
    extra = error.extra if isinstance(error.extra, list) else []
    parts = [f"{item['key']}: {_told(item)}" for item in extra if isinstance(item, dict) and "key" in item]
    if any(part.startswith("data:") for part in parts):
        return "This request needs a body, in JSON."
    if missing := _MISSING.match(error.detail):
        return f"The parameter {missing[1]} is missing."
    if not parts:
        return "The request cannot be read."
    return f"A part of this request is not what it should be: {'; '.join(parts)}."


def _told(item: dict[str, Any]) -> str:
    text = str(item.get("message", "not allowed")).replace("`", "")
    return text[:1].lower() + text[1:]


def _of_database(error: Exception) -> WioError:
    """Tell what is the machine's trouble, and passes, from what is a fault of ours."""
    text = str(error.orig).lower() if isinstance(error, DBAPIError) else ""
    if "disk is full" in text or "no space left" in text:
        return DiskFull("The hub has no space left for its database.", todo="Its administrator has to make room.")
    if (isinstance(error, DBAPIError) and error.connection_invalidated) or "database is locked" in text:
        return Unreachable("The hub's database does not answer.", todo="Try again in a moment.")
    if isinstance(error, ConnectionError | TimeoutError):
        return Unreachable("A part that the hub needs does not answer.", todo="Try again in a moment.")
    return Internal("The hub failed to do this. Its log says why.", todo="Tell the hub's administrator when it happened.")


async def add_headers(message: Message, _scope: Scope) -> None:
    """Give every answer, errors included, the headers that keep it where it belongs."""
    if message["type"] == "http.response.start":
        message["headers"] = [*message["headers"], *_HEADERS]
