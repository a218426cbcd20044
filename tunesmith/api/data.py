"""/v1/tunesmith/data: what the checks say about uploaded files, and their repair."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from tunesmith.api import files
from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.bases import BaseInfo
from tunesmith.data import apart, report_page, summary
from tunesmith.errors import ApiError, BadRequest, NotFound
from tunesmith.store.repo.files import FileRow
from tunesmith.wire.data import Report, ReportRequest, Stats, StatsRequest

router = APIRouter(prefix="/v1/tunesmith/data", route_class=JsonRoute)

# Read in this process, which for reports keeps the tables of OpenAI's encodings (120 MB); larger
# files get a process of their own.
MAX_BYTES_HERE = 256 << 10
TIMEOUT_S = 110.0


@router.post("/report")
def make_report(body: ReportRequest, svc: Svc, caller: CallerDep) -> Report:
    """The whole report, with a page of rows."""
    project = caller.project
    file = find_file(svc, project, body.file)
    valid = body.validation_file and find_file(
        svc, project, body.validation_file, "validation_file"
    )
    base = find_base(svc, project, body.base) if body.base else None
    request = report_page.Request(
        path=str(svc.blobs.path(file.id)),
        valid=str(svc.blobs.path(valid.id)) if valid else None,
        base=str(base.path) if base else None,
        method=body.method,
        max_tokens=base.context_length if base else None,
        after=body.after,
        limit=body.limit,
    )
    num_bytes = file.num_bytes + (valid.num_bytes if valid else 0)
    found = work(request, file, num_bytes, "report on", "check")
    found["file"] = file.id
    if valid:
        found["validation"]["file"] = valid.id
    return Report.model_validate({"base": body.base, "method": body.method, **found})


@router.post("/stats")
def make_stats(body: StatsRequest, svc: Svc, caller: CallerDep) -> Stats:
    """Lengths, turns, labels and system messages, as numbers and as histograms."""
    file = find_file(svc, caller.project, body.file)
    base = find_base(svc, caller.project, body.base)
    path, limit = str(svc.blobs.path(file.id)), base.context_length
    request = summary.Request(path, str(base.path), body.method, limit)
    found = work(request, file, file.num_bytes, "statistics of", "stats")
    return Stats.model_validate({"file": file.id, "base": body.base, **found})


def work(
    request: apart.Request,
    file: FileRow,
    num_bytes: int,
    what: str,
    command: str,
    *,
    param: str = "file",
    comfort: str = "",
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """The answer to a request that reads `num_bytes`, made here or in a process of its own.

    `comfort` is said to who cannot get it; None waits for TIMEOUT_S.
    """
    try:
        if num_bytes <= MAX_BYTES_HERE:
            return apart.work(request)
        return apart.work_apart(request, TIMEOUT_S if timeout_s is None else timeout_s)
    except apart.RefusedError as error:
        raise BadRequest(error.message, param=param) from None
    except apart.TooMuchError as error:
        raise BadRequest(
            f"The {what} '{file.id}' takes {error}. {comfort}Use the file where it lies: "
            f"`tunesmith data {command} FILE`.",
            param=param,
        ) from None
    except apart.CrashError as error:
        raise ApiError(
            f"The {what} '{file.id}' failed: {error}. {comfort}Try it again, or use the file where "
            f"it lies: `tunesmith data {command} FILE`."
        ) from None


def find_base(svc: Services, project_id: str, name: str) -> BaseInfo:
    try:
        return svc.names.find(project_id, name)[0]
    except NotFound as error:
        raise NotFound(error.message, code=error.code, param="base") from None


def find_file(svc: Services, project_id: str, file_id: str, param: str = "file") -> FileRow:
    try:
        return files.find(svc, project_id, file_id)
    except NotFound as error:
        raise NotFound(error.message, param=param) from None
