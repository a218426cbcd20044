"""An upload form, read as it comes: fields in any order, the file straight to where it is kept.

Memory is bounded by one chunk whatever the size of the file; the disk is written by a thread, and
the client waits while it is busy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from tunesmith.errors import BadRequest, TooLarge

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

# Gathered before a thread is sent to the disk: fewer hops, still little memory.
FLUSH_BYTES = 1 << 20
MAX_FIELDS = 32
MAX_FIELD_BYTES = 64 << 10


class Sink(Protocol):
    """Where the file goes; called from a worker thread."""

    def write(self, data: bytes) -> None: ...


@dataclass
class Form:
    """The text fields, and the name that the client gave the file (None: no file was sent)."""

    fields: dict[str, str] = field(default_factory=dict)
    filename: str | None = None
    num_bytes: int = 0


def boundary_of(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest(
            "Send the file as multipart/form-data with the fields 'purpose' and 'file'.",
            code="invalid_content_type",
        )
    return boundary


async def read_form(request: Request, file_field: str, sink: Sink, max_bytes: int) -> Form:
    """Reads the form of `request` to its end; the bytes of `file_field` go to `sink`.

    Raises BadRequest for what is no such form, TooLarge for a file above `max_bytes`, and
    starlette's ClientDisconnect when the client hangs up.
    """
    reader = _Reader(file_field, max_bytes)
    parser = MultipartParser(boundary_of(request.headers.get("content-type", "")), reader.callbacks)
    try:
        async for chunk in request.stream():
            parser.write(chunk)
            if len(reader.pending) >= FLUSH_BYTES:
                await run_sync(sink.write, reader.take())
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"The multipart body is broken: {error}.", code="invalid_form") from None
    if not reader.ended:
        raise BadRequest("The multipart body ends before its form does.", code="invalid_form")
    if reader.pending:
        await run_sync(sink.write, reader.take())
    return reader.form


class _Reader:
    """The callbacks of one parser run, which the parser calls in the order of the form."""

    def __init__(self, file_field: str, max_bytes: int) -> None:
        self.form = Form()
        self.pending = bytearray()
        self.ended = False
        self._file_field = file_field
        self._max_bytes = max_bytes
        self._num_parts = 0
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._value = bytearray()
        self._in_file = False

    @property
    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._header_field,
            "on_header_value": self._header_text,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }

    def take(self) -> bytes:
        data = bytes(self.pending)
        self.pending.clear()
        return data

    def _begin_part(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_FIELDS:
            raise BadRequest(f"The form has more than {MAX_FIELDS} fields.", code="invalid_form")
        self._headers.clear()
        self._value.clear()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        name, filename = disposition(self._headers.get(b"content-disposition", b""))
        if name is None:
            raise BadRequest("A part of the form has no name.", code="invalid_form")
        self._name = name
        self._in_file = name == self._file_field
        if self._in_file:
            if self.form.filename is not None:
                raise BadRequest(
                    "Send one file per request.", code="invalid_form", param=self._file_field
                )
            self.form.filename = filename or self._file_field

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self.form.num_bytes += end - start
            if self.form.num_bytes > self._max_bytes:
                raise TooLarge(
                    f"The file is larger than the limit of {self._max_bytes} bytes "
                    "(TUNESMITH_MAX_FILE_BYTES).",
                    code="file_too_large",
                    param=self._file_field,
                )
            self.pending += memoryview(data)[start:end]
        else:
            self._value += data[start:end]
            if len(self._value) > MAX_FIELD_BYTES:
                raise BadRequest(
                    f"The field '{self._name}' is longer than {MAX_FIELD_BYTES} bytes.",
                    code="invalid_form",
                    param=self._name,
                )

    def _end_part(self) -> None:
        if not self._in_file:
            self.form.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self.ended = True


def disposition(header: bytes) -> tuple[str | None, str | None]:
    """The name and the filename in a Content-Disposition header."""
    options = parse_options_header(header)[1]
    name, filename = options.get(b"name"), options.get(b"filename")
    return (
        None if name is None else name.decode("utf-8", "replace"),
        # Some tools send a whole path, of which only the end is a name.
        None if filename is None else filename.decode("utf-8", "replace").rsplit("/", 1)[-1][:255],
    )
