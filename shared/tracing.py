"""Traces: a request, the commit that it caused, and every handler that the announced facts reach, as one trace.

Off unless a collector is set; then nothing of OpenTelemetry's SDK is even imported. A span carries methods, routes,
event types, counts and codes; never an address that was asked for, a body or a message, for those may tell of a person.
A trace ends with what follows at once: a timer that was set begins one of its own when it is due, weeks later.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import Failure

HEADER = "traceparent"
_CE = "ce_traceparent"
STOP_SECONDS = 2.0

_w3c = TraceContextTextMapPropagator()
_OFF: AbstractContextManager[Span] = nullcontext(INVALID_SPAN)
_tracer: Tracer | None = None


def use(provider: TracerProvider | None) -> None:
    """Give spans to this provider from now on; `None` ends tracing.

    The provider is never made the process's global one: what libraries would then record of their own accord (whole
    addresses, statements) must not leave.
    """
    global _tracer
    _tracer = provider.get_tracer("training") if provider else None


@contextmanager
def exported(endpoint: str | None, **resource: str) -> Iterator[None]:
    """Inside, spans go to the OTLP collector at this address, if there is one. Leaving waits two seconds at most."""
    if endpoint is None:
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create(resource), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=STOP_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    use(provider)
    try:
        yield
    finally:
        use(None)
        last = threading.Thread(target=provider.shutdown, daemon=True)  # a collector that hangs holds nobody
        last.start()
        last.join(STOP_SECONDS)


def begun(
    name: str, kind: SpanKind, traceparent: str | None, attributes: Mapping[str, Any]
) -> AbstractContextManager[Span]:
    """A piece of work that this process begins: in the trace of `traceparent` (W3C), or, without, in a new one."""
    return _OFF if _tracer is None else _span(_tracer, name, _parent(traceparent), kind, attributes)


def step(name: str) -> AbstractContextManager[Span]:
    """A part of the work at hand; nothing when that is not traced."""
    traced = _tracer is not None and trace.get_current_span().get_span_context().is_valid
    return _span(_tracer, name, None, SpanKind.INTERNAL, {}) if _tracer and traced else _OFF


@contextmanager
def _span(
    tracer: Tracer, name: str, context: Context | None, kind: SpanKind, attributes: Mapping[str, Any]
) -> Iterator[Span]:
    """Failing marks it by a refusal's code or the error's class; a message would repeat the input."""
    with tracer.start_as_current_span(
        name, context, kind, attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            reason = error.code if isinstance(error, Failure) else type(error).__name__
            span.set_status(Status(StatusCode.ERROR, reason))
            raise


def note(**attributes: int) -> None:
    """Add numbers to the span at hand."""
    if _tracer is not None:
        trace.get_current_span().set_attributes(attributes)


def traceparent() -> str | None:
    """Where what is recorded now belongs, as W3C writes it; None when nothing is traced."""
    if _tracer is None:
        return None
    carrier: dict[str, str] = {}
    _w3c.inject(carrier)
    return carrier.get(HEADER)


def now() -> int:
    """For `published`: when sending began."""
    return time.time_ns() if _tracer is not None else 0


def published(topic: str, rows: Iterable[Mapping[str, Any]], began: int) -> None:
    """The broker has acknowledged these outbox rows, which were sent together: a span each, in its own trace."""
    if _tracer is None:
        return
    ended = time.time_ns()
    for row in rows:
        origin = next((bytes(value).decode("ascii", "replace") for name, value in row["headers"] if name == _CE), None)
        if origin is not None:
            attributes = {"messaging.system": "kafka", "messaging.destination.name": topic}
            span = _tracer.start_span(f"send {topic}", _parent(origin), SpanKind.PRODUCER, attributes, start_time=began)
            span.end(ended)


def _parent(traceparent: str | None) -> Context:
    """Without `tracestate`: it is free text of whoever calls."""
    return _w3c.extract({HEADER: traceparent} if traceparent else {}, Context())
