"""Spans as a collector gets them, and none where nobody asked for them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.service import make_service
from tests.unit.jobs.test_outbox import run_job
from tests.unit.jobs.world import World
from tunesmith.jobs.context import Context
from tunesmith.ops.tracing import Tracing, open_tracing

JOB = "tunesmith.job_id"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def memory() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(memory: InMemorySpanExporter) -> Tracing:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Tracing(provider)


def only(memory: InMemorySpanExporter) -> ReadableSpan:
    [span] = memory.get_finished_spans()
    return span


def test_a_request_continues_its_callers_trace(
    tracing: Tracing, memory: InMemorySpanExporter
) -> None:
    with tracing.request({"traceparent": CALLER}, "req_1") as span:
        tracing.end_request(span, "GET", "/v1/files/{file_id}", 200)
    done = only(memory)
    assert done.name == "GET /v1/files/{file_id}"
    assert f"{done.context.trace_id:032x}" == CALLER.split("-")[1]
    assert dict(done.attributes or {}) == {
        "tunesmith.request_id": "req_1",
        "http.request.method": "GET",
        "http.route": "/v1/files/{file_id}",
        "http.response.status_code": 200,
    }
    assert done.status.is_unset


def test_a_failure_of_ours_is_an_error(tracing: Tracing, memory: InMemorySpanExporter) -> None:
    with tracing.request({}, "req_1") as span:
        tracing.end_request(span, "GET", "/x", 500)
    assert not only(memory).status.is_ok


def test_all_work_on_a_job_is_one_trace(
    tracing: Tracing, memory: InMemorySpanExporter, world: World
) -> None:
    first, second = run_job(world), run_job(world)
    spans = memory.get_finished_spans()
    assert [span.name for span in spans] == ["validate", "train"] * 2
    by_job = {
        job: {span.context.trace_id for span in spans if (span.attributes or {})[JOB] == job}
        for job in (first, second)
    }
    assert all(len(traces) == 1 for traces in by_job.values())
    assert by_job[first] != by_job[second]


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory, tracing: Tracing) -> World:
    made = World(tmp_path_factory.mktemp("world") / "data")
    context = made.context
    made.context = Context(
        context.db, context.blobs, context.settings, context.clock, context.rng, tracing
    )
    return made


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """A collector's HTTP side: its address and what it got."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", got
    server.shutdown()


def test_a_collector_gets_them_by_otlp(
    collector: tuple[str, list[ExportTraceServiceRequest]],
) -> None:
    url, got = collector
    tracing = open_tracing("worker", url)
    tracing.work("ftjob-1", "train", 1_800_000_000.0, {"tunesmith.step": 3})
    tracing.close()
    [resource] = got[0].resource_spans
    assert resource.resource.attributes[0].value.string_value == "tunesmith-worker"
    [span] = resource.scope_spans[0].spans
    assert span.name == "train"
    assert span.start_time_unix_nano == 1_800_000_000 * 10**9


def test_a_request_to_the_service_is_a_span_with_its_route(
    collector: tuple[str, list[ExportTraceServiceRequest]], tmp_path: Path
) -> None:
    url, got = collector
    service = make_service(tmp_path / "data", otel_url=url)
    with service.http as http:
        http.get("/v1/files/file-none", headers={"traceparent": CALLER})
    [resource] = got[0].resource_spans
    [span] = resource.scope_spans[0].spans
    assert span.name == "GET /v1/files/{file_id}"
    assert span.trace_id.hex() == CALLER.split("-")[1]
    told = {one.key: one.value for one in span.attributes}
    assert told["http.response.status_code"].int_value == 404
    assert "file-none" not in str(span)


def test_without_a_collector_nothing_is_made() -> None:
    tracing = open_tracing("api", None)
    with tracing.request({"traceparent": CALLER}, "req_1") as span:
        assert span is None
        tracing.end_request(span, "GET", "/x", 200)
    tracing.work("ftjob-1", "train", 0.0, {})
    tracing.close()
