"""Routes with their documentation: what each needs, takes and answers is said once, and becomes OpenAPI.

What is taken and answered are msgspec structs; their schemas stand in the document under their names. Every failure
is ``{"error": "…"}``, with a status from one table.

Threads: routes are plain functions that run in threads of a pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import msgspec
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from idemfs import errors
from idemfs.node.http.gate import TOO_LARGE, UNEXPECTED, Caller, TooLarge
from idemfs.node.tokens import Scope

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (errors.SnapshotMissing, 404),
    (errors.FilesetMissing, 404),
    (errors.StoreMissing, 404),
    (errors.NotPermitted, 403),
    (errors.BadSnapshotName, 400),
    (errors.BadFilesetName, 400),
    (errors.BadPolicy, 400),
    (errors.CommitFailed, 503),
    (errors.NoSpace, 507),
    (errors.QuotaExceeded, 507),
    (errors.ConnectionLost, 502),
    (errors.IdemfsError, 409),
    (OSError, 500),
)
"""The first row whose class fits decides. 409: understood, and refused as things are."""

_DESCRIPTION = """\
A node of idemfs: the stores that its process owns, their snapshots, links and roles.

Every path but the health checks needs the certificate of a paired node, or a token in `Authorization: Bearer TOKEN`.
Scopes: `read` looks, `admin` also orders, `peer` speaks for another node. Times are UTC as ISO 8601.
"""
_SECURITY: list[dict[str, list[str]]] = [{"token": []}, {"certificate": []}]
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "made by `idemfs node token create`"},
    "certificate": {"type": "mutualTLS", "description": "of a node that this one is paired with"},
}
_REASONS = {
    200: "done",
    201: "made",
    400: "the request has no meaning",
    401: "neither a certificate of a paired node nor a token",
    403: "the token does not allow this",
    404: "there is no such thing",
    409: "refused as things are",
    502: "another node is needed, and cannot be reached",
    503: "not so, or not able to",
}


class Failure(msgspec.Struct, frozen=True):
    """Why a request was refused, or failed, in one line."""

    error: str


class RequestRefused(Exception):
    """The request is answered with this status and error."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


class Api:
    """The application; ``add`` gives it a route."""

    def __init__(self) -> None:
        self.app = FastAPI(
            title="idemfs",
            version=version("idemfs"),
            description=_DESCRIPTION,
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
        )
        self._types: list[Any] = [Failure]
        self._document: bytes | None = None
        handlers: dict[type[Exception], Callable[[Request, Any], Response]] = {
            Exception: _unexpected,
            RequestValidationError: _meaningless,
            HTTPException: lambda _, error: _failed(error.status_code, _detail(error)),
            TooLarge: lambda _, __: _failed(413, TOO_LARGE),
            RequestRefused: lambda _, error: _failed(error.status, str(error)),
            errors.IdemfsError: lambda _, error: _failed(status_of(error), _text(error)),
        }
        for kind, handler in handlers.items():
            self.app.add_exception_handler(kind, handler)
        self.add("GET", "/openapi.json", self._openapi, scope=Scope.READ, answers=dict[str, Any])

    def add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Response],
        *,
        scope: Scope | None,
        answers: Any,
        takes: Any = None,
        status: int = 200,
        refusals: tuple[int, ...] = (),
        media: str = "application/json",
    ) -> None:
        """``scope`` None: for everybody. The docstring of ``endpoint``: a summary, an empty line, a description.

        ``takes``, ``answers``: types of msgspec, of JSON, or for another ``media`` any.
        """
        statuses = [*((400,) if takes else ()), *((401, 403) if scope else ()), *refusals]
        responses: dict[int | str, dict[str, Any]] = {
            status: {"description": _REASONS[status], "content": {media: {"schema": self._schema(answers)}}}
        }
        for each in statuses:
            kind = Failure if scope is not None or each != 503 else answers
            content = {"application/json": {"schema": self._schema(kind)}}
            responses[each] = {"description": _REASONS[each], "content": content}
        extra: dict[str, Any] = {"security": _SECURITY if scope else []}
        if scope:
            extra["x-scope"] = scope.value
        if takes:
            extra["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": self._schema(takes)}},
            }
        summary, _, description = (endpoint.__doc__ or "").partition("\n\n")
        self.app.add_api_route(
            path,
            endpoint,
            methods=[method],
            status_code=status,
            response_class=Response,
            responses=responses,
            summary=" ".join(summary.split()),
            description=" ".join(description.split()),
            openapi_extra=extra,
            dependencies=[Depends(needs(scope))] if scope else [],
        )

    def _schema(self, kind: Any) -> dict[str, Any]:
        if kind is str:
            return {"type": "string"}
        self._types.append(kind)
        (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
        return schema

    def document(self) -> dict[str, Any]:
        """What ``/openapi.json`` answers."""
        document = self.app.openapi()
        _, schemas = msgspec.json.schema_components(self._types, ref_template="#/components/schemas/{name}")
        document["components"] = {"schemas": dict(sorted(schemas.items())), "securitySchemes": _SCHEMES}
        for operations in document["paths"].values():
            for operation in operations.values():
                # FastAPI's own answer to what it cannot read; here that is 400.
                operation["responses"].pop("422", None)
        return document

    def _openapi(self) -> Response:
        """This document.

        OpenAPI 3.1: every path, with what it needs, takes and answers.
        """
        if self._document is None:
            self._document = msgspec.json.encode(self.document())
        return Response(self._document, media_type="application/json")


def answer(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def needs(scope: Scope) -> Callable[[Request], None]:
    """A dependency that refuses who may not do this."""

    def check(request: Request) -> None:
        caller: Caller = request.state.caller
        if scope not in caller.scopes:
            who = f"node {caller.name}" if caller.is_node else f"token {caller.name}"
            raise RequestRefused(403, f"{who} has not the scope {scope.value!r}, which this needs")

    return check


async def body_of(request: Request) -> bytes:
    return await request.body()


def decoded(body: bytes, kind: type[Any]) -> Any:
    """Raises ``RequestRefused``."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as bad:
        raise RequestRefused(400, f"the body is not what this takes: {bad}") from bad


# -- failures ------------------------------------------------------------------------------------------


def status_of(error: Exception) -> int:
    return next(status for kind, status in STATUS if isinstance(error, kind))


def _text(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _failed(status: int, error: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(Failure(error)), status, headers, media_type="application/json")


def _detail(error: HTTPException) -> str:
    if error.status_code == 404:
        return "there is nothing at this path; /openapi.json lists what there is"
    if error.status_code == 405:
        return "this path does not take this method; /openapi.json lists what it takes"
    return str(error.detail)


def _meaningless(_: Request, error: RequestValidationError) -> Response:
    wrong = error.errors()[0]
    return _failed(400, f"{wrong['loc'][-1]}: {wrong['msg']}")


def _unexpected(_: Request, __: Exception) -> Response:
    """The gate logs it."""
    return _failed(500, UNEXPECTED)
