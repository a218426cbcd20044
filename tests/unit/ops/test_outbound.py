from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tunesmith.ops import outbound
from tunesmith.ops.outbound import Allowed, Answer, OutboundError, OutboundRefused

LOOPBACK = Allowed(["127.0.0.0/8"])
NOBODY = Allowed([])


def send(url: str, allowed: Allowed, **options: Any) -> Answer:
    sent = outbound.send("POST", url, allowed=allowed, headers={}, body=b"{}", **options)
    return asyncio.run(sent)


@contextmanager
def receiver(
    answer: Callable[[BaseHTTPRequestHandler], None],
) -> Iterator[tuple[int, list[dict[str, str]]]]:
    """A port of this machine and the headers of what came there."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()


def ok(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("content-length", "2")
    request.end_headers()
    request.wfile.write(b"ok")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://0.0.0.0/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://192.168.1.1/",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fe80::1]/",
        "https://[fd00::1]/",
        "https://224.0.0.1/",
        "https://localhost/",
        "http://example.com/",
        "http://8.8.8.8/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "https://",
        "https://user:password@example.com/",
        "https://example.com:99999/",
        "https://example.com:0/",
        "https://exa mple.com/",
        "https://example.com/\r\nhost: other",
        "https://ex\u00e4mple.com/",
        "https://[::1/",
        "https://example.com/" + "x" * 3000,
    ],
)
def test_no_way_into_our_own_network(url: str) -> None:
    with pytest.raises(OutboundRefused):
        send(url, NOBODY)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_addresses_are_public(address: str) -> None:
    assert outbound.is_public(ipaddress.ip_address(address))


def test_what_the_operator_allows_is_sent_to() -> None:
    with receiver(ok) as (port, seen):
        for allowed in (LOOPBACK, Allowed(["localhost"]), Allowed(["127.0.0.1", "::1"])):
            assert send(f"http://localhost:{port}/hook", allowed) == Answer(200, b"ok")
        with pytest.raises(OutboundRefused):
            send(f"http://localhost:{port}/", Allowed(["10.0.0.0/8", "other"]))
    assert {headers["host"] for headers in seen} == {f"localhost:{port}"}


def test_entries_that_mean_nothing_are_refused() -> None:
    for entry in ("10.0.0.0/99", "", "::zz"):
        with pytest.raises(ValueError):
            Allowed([entry])


def test_a_name_is_asked_once_and_the_checked_address_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name server that answers with a harmless address first and with ours after the check."""
    answers = iter(["127.0.0.1", "127.0.0.2"])
    asked = []

    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with receiver(ok) as (port, _):
        assert send(f"http://rebinding.test:{port}/", Allowed(["127.0.0.1"])).status == 200
        assert asked == ["rebinding.test"]
        with pytest.raises(OutboundRefused):
            send(f"http://rebinding.test:{port}/", Allowed(["127.0.0.1"]))


def test_one_bad_address_among_good_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        pair = ("8.8.8.8", "10.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in pair]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(OutboundRefused, match=r"10\.0\.0\.1"):
        send("https://two.test/", NOBODY)


def test_redirects_are_not_followed() -> None:
    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("location", "http://169.254.169.254/")
        request.send_header("content-length", "0")
        request.end_headers()

    with receiver(redirect) as (port, seen):
        assert send(f"http://127.0.0.1:{port}/", LOOPBACK) == Answer(307, b"")
    assert len(seen) == 1


def test_the_whole_exchange_ends_in_time() -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nx: ")
        for _ in range(100):
            time.sleep(0.05)
            request.wfile.write(b"x")
            request.wfile.flush()

    with receiver(drip) as (port, _):
        started_s = time.monotonic()
        with pytest.raises(OutboundError, match=r"within 0\.3 seconds"):
            send(f"http://127.0.0.1:{port}/", LOOPBACK, limit_s=0.3)
        assert time.monotonic() - started_s < 3


def test_no_more_is_read_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def flood(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"x" * 65536)

    monkeypatch.setattr(outbound, "MAX_ANSWER_BYTES", 100_000)
    with receiver(flood) as (port, _):
        assert len(send(f"http://127.0.0.1:{port}/", LOOPBACK).body) == 100_000


def test_trouble_on_the_way_is_told() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(OutboundError, match="failed"):
        send(f"http://127.0.0.1:{port}/", LOOPBACK)
    with pytest.raises(OutboundError, match="cannot be resolved"):
        send("https://no-such-host.invalid/", LOOPBACK)
    garbage = receiver(lambda request: request.wfile.write(b"not http\r\n\r\n") and None)
    with garbage as (port, _), pytest.raises(OutboundError, match="failed"):
        send(f"http://127.0.0.1:{port}/", LOOPBACK)
