"""/v1/files: uploads, results, and what is in them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import BinaryIO, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from tunesmith.access import Caller
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.multipart import Form, read_form
from tunesmith.api.services import MAX_PAGE, After, Limit, Services, Svc
from tunesmith.errors import BadRequest, NotFound
from tunesmith.ids import FILE, new_id
from tunesmith.store.repo import audit_log
from tunesmith.store.repo import files as repo
from tunesmith.store.repo.files import FileRow
from tunesmith.wire.files import RESULTS_PURPOSE, UPLOAD_PURPOSES, FileDeleted, FileObject
from tunesmith.wire.lists import Page

router = APIRouter(prefix="/v1/files", route_class=JsonRoute)

# A multiple of 3, so that the Base64 of each piece can simply be joined.
CHUNK_BYTES = 3 << 16
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 2592000


def shape(row: FileRow) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.num_bytes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        filename=row.filename,
        purpose=row.purpose,
    )


def find(svc: Services, project_id: str, file_id: str) -> FileRow:
    with svc.db.read() as conn:
        row = repo.get(conn, project_id, file_id)
    if row is None:
        raise NotFound(f"No such File object: {file_id}", param="id")
    return row


@router.post("")
async def create_file(request: Request, svc: Svc, caller: CallerDep) -> FileObject:
    """Stores an upload. The row comes last: a file that is listed is complete and on disk."""
    file_id = new_id(FILE, svc.rng)
    writer = await run_sync(svc.blobs.writer, file_id)
    try:
        form = await read_form(request, "file", writer, svc.settings.max_file_bytes)
        purpose, expires_in_s = check_form(form)
        num_bytes, sha256 = await run_sync(writer.finish)
    except BaseException:
        # Without a thread: this also runs when the client has gone and the request is cancelled.
        writer.abort()
        raise
    now = int(svc.clock.now())
    row = FileRow(
        id=file_id,
        project_id=caller.project,
        filename=form.filename or "file",
        num_bytes=num_bytes,
        purpose=purpose,
        sha256=sha256,
        created_at=now,
        expires_at=None if expires_in_s is None else now + expires_in_s,
    )
    await run_sync(_insert, svc, caller, row)
    svc.metrics.uploaded_bytes.inc(num_bytes)
    return shape(row)


def keep(
    svc: Services, caller: Caller, content: BinaryIO, filename: str, purpose: str
) -> FileObject:
    """Stores what was made here like an upload."""
    file_id = new_id(FILE, svc.rng)
    writer = svc.blobs.writer(file_id)
    try:
        for piece in pieces(content):
            writer.write(piece)
        num_bytes, sha256 = writer.finish()
    except BaseException:
        writer.abort()
        raise
    row = FileRow(
        id=file_id,
        project_id=caller.project,
        filename=filename,
        num_bytes=num_bytes,
        purpose=purpose,
        sha256=sha256,
        created_at=int(svc.clock.now()),
        expires_at=None,
    )
    _insert(svc, caller, row)
    return shape(row)


def check_form(form: Form) -> tuple[str, int | None]:
    """The purpose, and the seconds after which the file expires. The name is never judged."""
    if form.filename is None:
        raise BadRequest(
            "Missing required parameter: 'file'.", code="missing_required_parameter", param="file"
        )
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise BadRequest(
            "Missing required parameter: 'purpose'.",
            code="missing_required_parameter",
            param="purpose",
        )
    if purpose not in UPLOAD_PURPOSES:
        raise BadRequest(
            f"'{purpose}' is not one of {list(UPLOAD_PURPOSES)} - 'purpose'",
            code="invalid_value",
            param="purpose",
        )
    return purpose, _expiry(form.fields)


def _expiry(fields: dict[str, str]) -> int | None:
    anchor = fields.get("expires_after[anchor]")
    seconds = fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise BadRequest(
            "Invalid value for 'expires_after.anchor': the only anchor is 'created_at'.",
            code="invalid_value",
            param="expires_after.anchor",
        )
    # The length first: int() of a million digits is slow.
    valid = seconds is not None and len(seconds) <= 7 and seconds.isascii() and seconds.isdigit()
    if not valid or not MIN_EXPIRY_S <= int(seconds or "") <= MAX_EXPIRY_S:
        raise BadRequest(
            f"Invalid value for 'expires_after.seconds': give {MIN_EXPIRY_S} to {MAX_EXPIRY_S}.",
            code="invalid_value",
            param="expires_after.seconds",
        )
    return int(seconds or "")


def _insert(svc: Services, caller: Caller, row: FileRow) -> None:
    with svc.db.write() as conn:
        repo.insert(conn, row)
        detail = {"purpose": row.purpose, "bytes": row.num_bytes}
        audit_log.record(conn, svc.rng, row.created_at, caller, "file.created", row.id, detail)


@router.get("")
def list_files(
    svc: Svc,
    caller: CallerDep,
    after: After = None,
    limit: Limit = MAX_PAGE,
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Page[FileObject]:
    with svc.db.read() as conn:
        page = repo.page(
            conn, caller.project, after=after, limit=limit, order=order, purpose=purpose
        )
    return Page.of([shape(row) for row in page.rows], page.has_more)


@router.get("/{file_id}")
def retrieve_file(file_id: str, svc: Svc, caller: CallerDep) -> FileObject:
    return shape(find(svc, caller.project, file_id))


@router.delete("/{file_id}")
def delete_file(file_id: str, svc: Svc, caller: CallerDep) -> FileDeleted:
    """Hides the file at once; a job that is using it keeps its bytes until it has ended."""
    find(svc, caller.project, file_id)
    now = int(svc.clock.now())
    with svc.db.write() as conn:
        if repo.mark_deleted(conn, caller.project, file_id, now):
            audit_log.record(conn, svc.rng, now, caller, "file.deleted", file_id)
    return FileDeleted(id=file_id)


@router.get("/{file_id}/content")
def file_content(
    file_id: str, request: Request, svc: Svc, caller: CallerDep, format: str = ""
) -> StreamingResponse:
    """The bytes as uploaded. Results come as Base64, as scripts for the hosted service expect;
    `?format=csv` or `Accept: text/csv` asks for the plain table."""
    row = find(svc, caller.project, file_id)
    blob = svc.blobs.open(file_id)
    if row.purpose != RESULTS_PURPOSE:
        return StreamingResponse(pieces(blob), media_type="application/octet-stream")
    if format == "csv" or "text/csv" in request.headers.get("accept", ""):
        return StreamingResponse(pieces(blob), media_type="text/csv")
    encoded = (base64.b64encode(piece) for piece in pieces(blob))
    return StreamingResponse(encoded, media_type="application/octet-stream")


def pieces(blob: BinaryIO) -> Iterator[bytes]:
    with blob:
        while piece := blob.read(CHUNK_BYTES):
            yield piece
