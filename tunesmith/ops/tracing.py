"""Traces by OpenTelemetry: a span for each request, and one trace for each job.

Off unless `otel_url` names a collector; then the extra `otel` must be installed. A span tells of a
route, a status, a job's id and its figures: no prompts, no keys, no queries.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from tunesmith import __version__
from tunesmith.errors import TunesmithError

Attributes = Mapping[str, str | int | float]


class TracingError(TunesmithError):
    """Traces are asked for and cannot be had."""


class Tracing:
    """Makes spans, or nothing without a provider (an OpenTelemetry TracerProvider)."""

    def __init__(self, provider: Any = None) -> None:
        self._provider = provider
        self._tracer = None if provider is None else provider.get_tracer("tunesmith", __version__)

    @contextmanager
    def request(self, headers: Mapping[str, str], request_id: str) -> Iterator[Any]:
        """The span of a request, as a child of the caller's where its headers say so, or None.

        Give it its name and status with `end_request` once they are known.
        """
        if self._tracer is None:
            yield None
            return
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(headers)
        with self._tracer.start_as_current_span(
            "request",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={"tunesmith.request_id": request_id},
        ) as span:
            yield span

    @staticmethod
    def end_request(span: Any, method: str, route: str, status: int | None) -> None:
        if span is None:
            return
        span.update_name(f"{method} {route}")
        span.set_attribute("http.request.method", method)
        span.set_attribute("http.route", route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
        if status is None or status >= 500:
            from opentelemetry.trace import Status, StatusCode

            span.set_status(Status(StatusCode.ERROR))

    def work(self, job_id: str, name: str, started: float, attributes: Attributes) -> None:
        """The span of a round of work on a job, ending now; all rounds of a job share a trace."""
        if self._tracer is None:
            return
        from opentelemetry import trace

        digest = hashlib.sha256(job_id.encode()).digest()
        job = trace.SpanContext(
            trace_id=int.from_bytes(digest[:16]),
            span_id=int.from_bytes(digest[16:24]),
            is_remote=True,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        )
        context = trace.set_span_in_context(trace.NonRecordingSpan(job))
        span = self._tracer.start_span(
            name,
            context=context,
            start_time=int(started * 1e9),
            attributes={"tunesmith.job_id": job_id, **attributes},
        )
        span.end()

    def close(self) -> None:
        """Sends what is left."""
        if self._provider is not None:
            self._provider.shutdown()


def require_library(url: str | None) -> None:
    """Raises TracingError where traces are asked for and OpenTelemetry is not installed."""
    if url is not None and not _is_installed():
        raise TracingError(
            "TUNESMITH_OTEL_URL is set, but OpenTelemetry is not installed. Install it with "
            "pip install 'tunesmith[otel]', or take the setting away."
        )


def _is_installed() -> bool:
    try:
        return find_spec("opentelemetry.sdk") is not None
    except ModuleNotFoundError:
        return False


def open_tracing(service: str, url: str | None) -> Tracing:
    """Sends to the collector at `url`, in the background. Raises TracingError."""
    if url is None:
        return Tracing()
    require_library(url)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource({"service.name": f"tunesmith-{service}"}))
    exporter = OTLPSpanExporter(endpoint=f"{url.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)
