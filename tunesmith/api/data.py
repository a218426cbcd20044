"""/v1/tunesmith/data: what the checks say about uploaded files."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tunesmith.api import files, models
from tunesmith.api.body import JsonRoute
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.data import apart
from tunesmith.errors import ApiError, BadRequest, NotFound
from tunesmith.store.repo.files import FileRow
from tunesmith.wire.data import ReportRequest

router = APIRouter(prefix="/v1/tunesmith/data", route_class=JsonRoute)

# Checked at once, in this process, which then keeps the tables of OpenAI's encodings (120 MB);
# larger files get a process of their own.
MAX_BYTES_HERE = 256 << 10
TIMEOUT_S = 110.0


@router.post("/report")
def make_report(body: ReportRequest, svc: Svc) -> dict[str, Any]:
    """The whole report, with a page of rows."""
    file = _file(svc, body.file, "file")
    valid = _file(svc, body.validation_file, "validation_file") if body.validation_file else None
    base = _base(svc, body.base) if body.base else None
    request = apart.Request(
        path=str(svc.blobs.path(file.id)),
        valid=str(svc.blobs.path(valid.id)) if valid else None,
        base=str(base.path) if base else None,
        method=body.method,
        max_tokens=base.context_length if base else None,
        after=body.after,
        limit=body.limit,
    )
    try:
        if file.num_bytes + (valid.num_bytes if valid else 0) <= MAX_BYTES_HERE:
            found = apart.make(request)
        else:
            found = apart.make_apart(request, TIMEOUT_S)
    except apart.TooMuchError as error:
        raise BadRequest(
            f"The report on '{body.file}' takes {error}. Check the file where it lies: "
            "`tunesmith data check FILE`.",
            param="file",
        ) from None
    except apart.CrashError as error:
        raise ApiError(
            f"The report on '{body.file}' failed: {error}. Try it again, or check the file where "
            "it lies: `tunesmith data check FILE`."
        ) from None
    found["file"] = file.id
    if valid is not None:
        found["validation"]["file"] = valid.id
    about = {"object": "tunesmith.data.report", "base": body.base, "method": body.method}
    return about | found


def _base(svc: Services, name: str) -> BaseInfo:
    try:
        return models.find(svc, name)[0]
    except NotFound as error:
        raise NotFound(error.message, code=error.code, param="base") from None


def _file(svc: Services, file_id: str, param: str) -> FileRow:
    try:
        return files.find(svc, file_id)
    except NotFound as error:
        raise NotFound(error.message, param=param) from None
