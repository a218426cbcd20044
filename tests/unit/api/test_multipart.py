from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from tunesmith.api import multipart
from tunesmith.api.multipart import Form, read_form
from tunesmith.errors import ApiError, BadRequest, TooLarge

BOUNDARY = "xYzZY"


class Memory:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    @property
    def data(self) -> bytes:
        return b"".join(self.writes)


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    extra = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def read(
    body: bytes, *, step: int = 1 << 16, max_bytes: int = 1 << 20, content_type: str | None = None
) -> tuple[Form, Memory]:
    chunks = [body[start : start + step] for start in range(0, len(body), step)] or [b""]

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for place, chunk in enumerate(chunks):
            more = place < len(chunks) - 1
            yield {"type": "http.request", "body": chunk, "more_body": more}

    coming = messages()
    content_type = content_type or f"multipart/form-data; boundary={BOUNDARY}"
    scope = {"type": "http", "headers": [(b"content-type", content_type.encode())]}
    request = Request(scope, coming.__anext__)
    sink = Memory()
    return asyncio.run(read_form(request, "file", sink, max_bytes)), sink


@given(
    data=st.binary(max_size=300) | st.just(f"\r\n--{BOUNDARY}".encode() * 3 + b"x"[:0]),
    step=st.integers(1, 64),
    purpose_first=st.booleans(),
)
def test_bytes_arrive_as_they_were_however_they_are_cut(
    data: bytes, step: int, purpose_first: bool
) -> None:
    if f"\r\n--{BOUNDARY}".encode() in data:
        data = data.replace(BOUNDARY.encode(), b"other")
    file, purpose = part("file", data, "a.jsonl"), part("purpose", b"fine-tune")
    body = purpose + file if purpose_first else file + purpose
    form, sink = read(body + END, step=step)
    assert sink.data == data
    assert form.fields == {"purpose": "fine-tune"}
    assert (form.filename, form.num_bytes) == ("a.jsonl", len(data))


def test_a_large_file_is_passed_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "FLUSH_BYTES", 1000)
    _, sink = read(part("file", b"x" * 50_000, "a") + END, step=512)
    assert max(map(len, sink.writes)) < 2_000
    assert len(sink.data) == 50_000


def test_a_file_above_the_limit_is_refused_before_it_has_all_come() -> None:
    with pytest.raises(TooLarge, match="1000 bytes"):
        read(part("file", b"x" * 1001, "a") + END, max_bytes=1000)
    form, _ = read(part("file", b"x" * 1000, "a") + END, max_bytes=1000)
    assert form.num_bytes == 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form at all",
        part("file", b"x", "a"),
        part("file", b"x", "a")[:-5],
        b"--" + BOUNDARY.encode() + b"\r\nContent-Type: text/plain\r\n\r\nx\r\n" + END,
        part("file", b"x", "a") + part("file", b"y", "b") + END,
        part("field", b"x") * 40 + END,
        part("field", b"x" * 70_000) + END,
    ],
)
def test_broken_forms_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read(body)


@pytest.mark.parametrize(
    "content_type", ["application/json", "multipart/form-data", "x; boundary=a"]
)
def test_anything_but_a_form_is_refused(content_type: str) -> None:
    with pytest.raises(BadRequest, match="multipart/form-data"):
        read(b"", content_type=content_type)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("train.jsonl", "train.jsonl"),
        ("../../etc/passwd", "passwd"),
        ("C:\\\\data\\\\a.jsonl", "a.jsonl"),
        ("daten-\u00e4.jsonl", "daten-\u00e4.jsonl"),
        ("", "file"),
    ],
)
def test_file_names_are_only_names(sent: str, kept: str) -> None:
    form, _ = read(part("file", b"x", sent) + END)
    assert form.filename == kept


@given(st.binary(max_size=400))
def test_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    for body in (noise, part("file", noise, "a")[:-2] + noise):
        try:
            read(body)
        except ApiError as error:
            assert error.status == 400
