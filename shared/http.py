"""What every endpoint has without asking: problem documents, correlation, limits, ETags, idempotency, paging.

The one place that maps failures to HTTP (RFC 9457).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar
from uuid import UUID, uuid4

import structlog
from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints
from pymongo import ASCENDING, IndexModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import clock, identity, tracing
from shared.domain import Seen, State
from shared.errors import Failure, PreconditionFailed, Rejected, Unavailable
from shared.ids import Id, derive
from shared.metrics import REQUESTS
from shared.mongo import Database, Transaction

T = TypeVar("T")
D = TypeVar("D", date, datetime)

BODY_BYTES = 1024 * 1024
BODY_DEPTH = 32
NAME_LENGTH = 100  # of a field that a caller invented, when it is told what is wrong with it
MAX_INTEGER = 2**53 - 1  # what every JSON reader keeps exactly
IDEMPOTENCY_SECONDS = 86_400

INDEXES = {"idempotency": [IndexModel([("at", ASCENDING)], name="retention", expireAfterSeconds=IDEMPOTENCY_SECONDS)]}

log = structlog.get_logger("http")


# --- problems ----------------------------------------------------------------------------------------------------


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457). Further members belong to the kind of problem."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    correlation_id: str | None = None
    errors: list[FieldProblem] | None = None


def problem_type(code: str) -> str:
    """Where a kind of problem is explained."""
    return f"/docs/problems.md#{code}"


def problems(*failures: type[Failure]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may fail in these ways."""
    by_status: dict[int, list[type[Failure]]] = {}
    for failure in failures:
        by_status.setdefault(failure.status, []).append(failure)
    return {
        status: {"model": Problem, "description": "; ".join(f"{f.code}: {f.title}" for f in named)}
        for status, named in by_status.items()
    }


def _answer(
    status: int, code: str, title: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    correlation_id = structlog.contextvars.get_contextvars().get("correlation_id")
    body = {"type": problem_type(code), "title": title, "status": status, "correlation_id": correlation_id, **members}
    plain = json.loads(json.dumps(body, default=str))
    return JSONResponse(plain, status, dict(headers or {}), media_type="application/problem+json")


async def _failed(request: Request, failure: Exception) -> JSONResponse:
    assert isinstance(failure, Failure)
    headers = {}
    if isinstance(failure, Unavailable):
        headers["Retry-After"] = str(failure.retry_after_seconds)
    if isinstance(failure, identity.Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    structlog.contextvars.bind_contextvars(problem=failure.code)
    return _answer(failure.status, failure.code, failure.title, headers, **failure.members)


async def _unfit(request: Request, error: Exception) -> JSONResponse:
    """A request that does not fit its schema. Names the places, never the values; a long name is cut."""
    assert isinstance(error, RequestValidationError)
    wrong = []
    for issue in error.errors():
        names = (name if len(name) <= NAME_LENGTH else name[:NAME_LENGTH] + "…" for name in map(str, issue["loc"]))
        place = [name.replace("~", "~0").replace("/", "~1") for name in names]
        wrong.append({"pointer": "/" + "/".join(place), "detail": issue["type"]})
    structlog.contextvars.bind_contextvars(problem="invalid-request")
    return _answer(422, "invalid-request", "The request does not fit its schema", errors=wrong[:50])


async def _beyond(request: Request, error: Exception) -> JSONResponse:
    """A date or number of the request leads beyond what a calendar or the database can hold."""
    log.warning("request.beyond-range", exc_info=error)
    structlog.contextvars.bind_contextvars(problem="invalid-request")
    errors = [{"pointer": "/", "detail": "out-of-range"}]
    return _answer(422, "invalid-request", "The request does not fit its schema", errors=errors)


_HTTP_CODES = {
    400: ("malformed-request", "The request cannot be read"),
    404: ("not-found", "There is no such thing, or it is not yours"),
    405: ("method-not-allowed", "This resource does not know that method"),
}


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code, title = _HTTP_CODES.get(error.status_code, ("http-failure", "The request failed"))
    return _answer(error.status_code, code, title, error.headers)


# --- around every request ----------------------------------------------------------------------------------------


_ASKED_OFTEN = ("/healthz", "/readyz", "/metrics", "/internal/v1/quiet")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _TooLarge(Exception):
    pass


class _Gone(Exception):
    """The caller left before its request was whole."""


class _Frame:
    """Correlation, one log line, the body's limits, and an answer for bugs. Pure ASGI: it holds nothing back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"  # a caller may send any word
        if bare := method == "HEAD":
            scope = {**scope, "method": "GET"}  # answered as GET is, without the body
        correlation_id = _uuid(headers.get("x-correlation-id")) or str(uuid4())
        prefix = headers.get("x-forwarded-prefix", "")
        if re.fullmatch(r"/[a-z]{1,32}", prefix):
            scope["root_path"] = prefix
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        status = 500
        sent = False

        async def answer(message: Message) -> None:
            nonlocal status, sent
            if bare and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                status, sent = message["status"], True
                message["headers"] = [*message["headers"], (b"x-correlation-id", correlation_id.encode())]
            await send(message)

        began = time.perf_counter()
        with _span(method, scope["path"], headers, correlation_id) as span:
            try:
                body = await _body(receive, headers)
                if (wrong := _unreadable(body, headers)) is not None:
                    await wrong(scope, receive, answer)
                else:
                    await self._app(scope, _replay(body, receive), answer)
            except _Gone:
                status = 499  # never sent: nobody is there to read it
            except _TooLarge:
                response = _answer(413, "too-large", f"A body may have {BODY_BYTES} bytes")
                await response(scope, receive, answer)
            except Exception as error:
                log.error("request.failed", reason=type(error).__name__, exc_info=True)
                if not sent:
                    response = _answer(500, "internal-failure", "The service failed; the failure is recorded")
                    await response(scope, receive, answer)
            finally:
                seconds = time.perf_counter() - began
                route = getattr(scope.get("route"), "path", "unknown")
                REQUESTS.labels(route, method, str(status)).observe(seconds)
                span.update_name(f"{method} {route}")
                span.set_attributes({"http.route": route, "http.response.status_code": status})
                if status >= 500:
                    span.set_status(StatusCode.ERROR)
                if not route.startswith(_ASKED_OFTEN):
                    log.info("request.answered", method=method, route=route, status=status, ms=round(seconds * 1000, 1))


def _span(method: str, path: str, headers: Headers, correlation_id: str) -> AbstractContextManager[Span]:
    """The caller's trace goes on here. What a machine asks every second is none."""
    if path.startswith(_ASKED_OFTEN):
        return nullcontext(INVALID_SPAN)
    attributes = {"http.request.method": method, "correlation_id": correlation_id}
    return tracing.begun(method, SpanKind.SERVER, headers.get(tracing.HEADER), attributes)


def _uuid(text: str | None) -> str | None:
    try:
        return str(UUID(text)) if text else None
    except ValueError:
        return None


async def _body(receive: Receive, headers: Headers) -> bytes:
    """The whole body, up to its limit, however it is sent. Half a request is none: it raises `_Gone`."""
    if (length := headers.get("content-length")) is not None and length.isdecimal() and int(length) > BODY_BYTES:
        raise _TooLarge
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _Gone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_BYTES:
            raise _TooLarge
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _bounded(digits: str) -> int:
    if len(digits) > 17 or abs(int(digits)) > MAX_INTEGER:
        raise ValueError("integer-out-of-range")
    return int(digits)


def _refused(constant: str) -> float:
    raise ValueError("not-a-number")


def _nested_too_deeply(text: str, read: Any) -> bool:
    if text.count("[") + text.count("{") <= BODY_DEPTH:
        return False
    level = [read]
    for _ in range(BODY_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, (list, dict))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, (list, dict)) for item in level)


def _unreadable(body: bytes, headers: Headers) -> JSONResponse | None:
    """Refuse JSON that no database keeps: numbers beyond range, NaN, lone surrogates, NUL, bottomless nesting."""
    if not body or "json" not in headers.get("content-type", "json").lower():
        return None
    detail = None
    try:
        text = body.decode()
        read = json.loads(text, parse_int=_bounded, parse_constant=_refused)
        if _nested_too_deeply(text, read):
            detail = "nested-too-deeply"
        elif "\\u0000" in text:
            detail = "nul-character"
        elif "\\u" in text:
            json.dumps(read, ensure_ascii=False).encode()
    except UnicodeError:
        detail = "not-utf8"
    except RecursionError:
        detail = "nested-too-deeply"
    except json.JSONDecodeError:
        detail = "not-json"
    except ValueError as error:
        detail = str(error)
    if detail is None:
        return None
    errors = [{"pointer": "/body", "detail": detail}]
    return _answer(422, "invalid-request", "The request does not fit its schema", errors=errors)


def install(app: FastAPI) -> None:
    """Give the app its frame, its failures as problem documents, and an OpenAPI document that says so."""
    app.add_middleware(_Frame)
    app.add_exception_handler(Failure, _failed)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OverflowError, _beyond)
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_problems(original())
            for route in identity.routes_of(app):
                stated = identity.statement_of(route)
                if route.include_in_schema and any(isinstance(who, identity.Public) for who in stated):
                    for method in route.methods or ():
                        _open_to_all(app.openapi_schema["paths"][route.path][method.lower()])
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _open_to_all(operation: dict[str, Any]) -> None:
    operation["security"] = []
    for status in ("401", "403"):
        operation["responses"].pop(status, None)


_READ_HEADERS = frozenset({"if-match", "idempotency-key"})


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    if "Problem" not in schemas:
        schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= schema.pop("$defs", {}) | {"Problem": schema}
    reference = {"$ref": "#/components/schemas/Problem"}
    document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    document["security"] = [{"bearer": []}]
    for path in document.get("paths", {}).values():
        for method, operation in path.items():
            responses = operation["responses"]
            if method == "put" and (made := responses.get("201") or responses.get("202")):
                responses.setdefault("200", {**made, "description": "It is there already"})
            for status, title in (
                ("401", "No valid token"),
                ("403", "Not your role"),
                ("422", "Does not fit the schema"),
                ("503", "A neighbour is away; try again"),
            ):
                responses.setdefault(status, {"description": title})
            if "requestBody" in operation:
                responses.setdefault("413", {"description": "The body is too large"})
            if any(parameter["name"] in _READ_HEADERS for parameter in operation.get("parameters", ())):
                responses.setdefault("400", {"description": "A header cannot be read"})
            for status, response in responses.items():
                if status.startswith(("4", "5")):
                    response["content"] = {"application/problem+json": {"schema": reference}}
    return document


# --- what endpoints ask for --------------------------------------------------------------------------------------

# All of them `async`: FastAPI gives anything else to a thread, once per request.


async def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


Db = Annotated[Database, Depends(_database)]
"""The service's database."""


def etag(state: State) -> str:
    """The ETag header of a state: it changes only when a field that its own PUT or PATCH can set changes."""
    return f'"{state.revision}"'


class MalformedPrecondition(Failure):
    """If-Match must be an ETag that this resource has given out, or `*`."""

    status: ClassVar[int] = 400


async def _if_match(if_match: Annotated[str | None, Header()] = None) -> Seen:
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return "*"
    if (match := re.fullmatch(r'\s*(W/)?"([0-9]{1,15})"\s*', if_match)) is None:
        raise MalformedPrecondition
    if match[1]:
        raise PreconditionFailed  # a weak ETag is like no other, whatever it says (RFC 9110, 13.1.1)
    return int(match[2])


IfMatch = Annotated[Seen, Depends(_if_match)]
"""The revision that the caller has seen, if it said so."""


def _in_our_times(value: D) -> D:
    if not 2000 <= value.year < 2100:
        raise ValueError("not between the years 2000 and 2100")
    return value


Day = Annotated[date, AfterValidator(_in_our_times)]
Instant = Annotated[AwareDatetime, AfterValidator(_in_our_times), AfterValidator(lambda at: at.astimezone(UTC))]
"""When something of training is, in UTC as it is kept. Near year 1 or 9999 it could not be told in every zone."""


def _counted(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]{0,15}", value) is None:
        raise ValueError("not a number as one counts")
    return value


Count = Annotated[int, BeforeValidator(_counted)]
"""A number in a path or query, in its one form: `2`, not `2.0`, `+2` or `02`."""

Line = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=200,
        strip_whitespace=True,
        pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+$",
    ),
]
"""One line of text as it will be read: no control characters, no line or paragraph breaks, no turned directions."""


class Page(BaseModel, Generic[T]):
    """A part of a list, in the order of ids; `next` is the cursor of the part after it."""

    items: list[T]
    next: str | None = None


class _Paging(BaseModel):
    limit: int
    after: str | None


async def _paging(limit: Annotated[Count, Query(ge=1, le=500)] = 100, after: Id | None = None) -> _Paging:
    return _Paging(limit=limit, after=after)


Paging = Annotated[_Paging, Depends(_paging)]
"""Which part of a list: at most `limit`, after the cursor `after`."""


async def _digest(request: Request) -> str:
    body = await request.body()
    try:
        canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":")) if body else ""
    except (ValueError, RecursionError):  # no JSON: whether the endpoint takes it is not asked here
        canonical = body.hex()
    caller = await identity.caller_of(request)
    message = "\n".join((request.method, request.url.path, caller.authid, canonical))
    return hashlib.sha256(message.encode()).hexdigest()


Asked = Annotated[str, Depends(_digest)]
"""The digest of what is asked and by whom. A PUT that creates keeps it, and so knows the same request again."""


class IdempotencyKeyReused(Rejected):
    """This Idempotency-Key was used for another request."""

    status: ClassVar[int] = 422


class MalformedIdempotencyKey(Failure):
    """An Idempotency-Key has 8 to 64 letters, digits, dots, dashes or underscores."""

    status: ClassVar[int] = 400


class Answered(State):
    """That a POST was answered, and where its result is. Never a body."""

    collection: ClassVar[str] = "idempotency"

    caller: str
    digest: str
    status: int
    location: str
    at: datetime


class Idempotency:
    """One use of an Idempotency-Key by one caller, kept in the same transaction as what it did."""

    def __init__(self, key: str, caller: str, digest: str) -> None:
        self._id = derive("http", "idempotency", caller, key)
        self._caller = caller
        self._digest = digest

    async def replay(self, tx: Transaction) -> Answered | None:
        """How it was answered before, if it was. Raises `IdempotencyKeyReused` for another request under the key."""
        answered = await tx.load(Answered, self._id)
        if answered is not None and answered.digest != self._digest:
            raise IdempotencyKeyReused
        return answered

    def remember(self, tx: Transaction, status: int, location: str) -> None:
        """Note how it is answered now."""
        kept = {"caller": self._caller, "digest": self._digest, "status": status, "location": location}
        tx.save(Answered(id=self._id, at=clock.real_now(), **kept))


async def _idempotency(
    request: Request, digest: Asked, idempotency_key: Annotated[str | None, Header()] = None
) -> Idempotency | None:
    if idempotency_key is None:
        return None
    if re.fullmatch(r"[A-Za-z0-9._-]{8,64}", idempotency_key) is None:
        raise MalformedIdempotencyKey
    return Idempotency(idempotency_key, (await identity.caller_of(request)).authid, digest)


IdempotencyKey = Annotated[Idempotency | None, Depends(_idempotency)]
"""The caller's Idempotency-Key, if it sent one."""
