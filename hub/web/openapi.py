"""The OpenAPI 3.1 document, made from the routes themselves.

Its schemas are msgspec's own, of the very types that msgspec reads and writes, so that it says what is true of the bytes:
which fields must be there, that unknown ones are refused, which values travel as arrays. A framework's second description
of the same types would have to be kept equal by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.params import ParameterKwarg
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from hub.web.call import OPEN
from protocol.errors import Problem

BASE: Final = "/api/v1"
_REFERENCE: Final = "#/components/schemas/{name}"
_ENCODE: Final = msgspec.json.Encoder(order="deterministic")
_RESERVED: Final = frozenset({"request", "data"})


def document(app: Litestar, *, version: str) -> bytes:
    """Describe every route below ``/api/v1``; JSON."""
    operations = list(_operations(app))
    wanted = _Schemas()
    for _, _, handler in operations:
        for field in _fields(handler):
            wanted.add(field)
    wanted.add(Problem)
    schemas = wanted.describe()
    paths: dict[str, dict[str, Any]] = {}
    for path, method, handler in operations:
        paths.setdefault(path, {})[method] = _operation(path, handler, schemas)
    return _ENCODE.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "wio hub", "version": version, "description": "The people's side of a wio hub."},
            "paths": paths,
            "components": {
                "schemas": schemas.components,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"token": []}],
        }
    )


class _Described:
    """Schemas by type."""

    def __init__(self, types: list[Any], schemas: tuple[dict[str, Any], ...], components: dict[str, Any]) -> None:
        self._types = types
        self._schemas = schemas
        self.components = components

    def of(self, wanted: Any) -> dict[str, Any]:
        """Return the schema of a type, which may point into ``components``."""
        return self._schemas[self._types.index(wanted)]


class _Schemas:
    """The types to describe, described together so that each has one name."""

    def __init__(self) -> None:
        self._types: list[Any] = []

    def add(self, wanted: Any) -> None:
        if wanted not in self._types:
            self._types.append(wanted)

    def describe(self) -> _Described:
        schemas, components = msgspec.json.schema_components(self._types, ref_template=_REFERENCE)
        return _Described(self._types, schemas, components)


def _operations(app: Litestar) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    for route in app.routes:
        if not isinstance(route, HTTPRoute) or not route.path.startswith(BASE):
            continue
        for handler in route.route_handlers:
            if handler.resolve_include_in_schema():
                for method in sorted(handler.http_methods):
                    yield route.path_format, method.lower(), handler


def _fields(handler: HTTPRouteHandler) -> Iterator[Any]:
    for field in _parameters(handler):
        yield field.annotation
    if handler.parsed_data_field is not None:
        yield handler.parsed_data_field.annotation
    if not _empty(handler):
        yield handler.parsed_return_field.annotation


def _parameters(handler: HTTPRouteHandler) -> Iterable[FieldDefinition]:
    return (field for name, field in handler.parsed_fn_signature.parameters.items() if name not in _RESERVED)


def _empty(handler: HTTPRouteHandler) -> bool:
    return handler.parsed_return_field.is_none_type


def _operation(path: str, handler: HTTPRouteHandler, schemas: _Described) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": handler.operation_id,
        "summary": (handler.fn.__doc__ or "").strip().partition("\n")[0],
        "tags": sorted(handler.resolve_tags()),
        "responses": _responses(handler, schemas),
    }
    parameters = [_parameter(path, field, schemas) for field in _parameters(handler)]
    if parameters:
        found["parameters"] = parameters
    if handler.parsed_data_field is not None:
        found["requestBody"] = {"required": True, "content": _json(schemas.of(handler.parsed_data_field.annotation))}
    if handler.opt.get(OPEN):
        found["security"] = []
    return found


def _parameter(path: str, field: FieldDefinition, schemas: _Described) -> dict[str, Any]:
    in_path = f"{{{field.name}}}" in path
    schema = dict(schemas.of(field.annotation))
    if isinstance(field.kwarg_definition, ParameterKwarg):
        limits = {"minimum": field.kwarg_definition.ge, "maximum": field.kwarg_definition.le}
        schema |= {word: limit for word, limit in limits.items() if limit is not None}
    if field.has_default and field.default is not None:
        schema["default"] = field.default
    required = in_path or field.is_required
    return {"name": field.name, "in": "path" if in_path else "query", "required": required, "schema": schema}


def _responses(handler: HTTPRouteHandler, schemas: _Described) -> dict[str, Any]:
    good: dict[str, Any] = {"description": "Done"}
    if not _empty(handler):
        good["content"] = _json(schemas.of(handler.parsed_return_field.annotation))
    found = {str(handler.status_code): good}
    for status, spec in (handler.responses or {}).items():
        found[str(status)] = {"description": spec.description, "content": _json(schemas.of(Problem))}
    return found


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
