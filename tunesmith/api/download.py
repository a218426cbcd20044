"""/v1/tunesmith/models/{name}/files: a tuned model's files, as one zip."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import StreamingResponse

from tunesmith.api.body import JsonRoute
from tunesmith.api.caller import CallerDep
from tunesmith.api.services import Services, Svc
from tunesmith.errors import BadRequest

router = APIRouter(prefix="/v1/tunesmith/models", route_class=JsonRoute)

CHUNK_BYTES = 1 << 20


@router.get("/{name:path}/files")
def download_model(name: str, svc: Svc, caller: CallerDep) -> StreamingResponse:
    """The adapter in PEFT's format, or the whole model where all weights were trained."""
    directory = _directory(svc, caller.project, name)
    called = "".join(each if each.isalnum() or each in "-_" else "-" for each in name)
    headers = {"content-disposition": f'attachment; filename="{called}.zip"'}
    return StreamingResponse(zipped(directory), media_type="application/zip", headers=headers)


def _directory(svc: Services, project_id: str, name: str) -> Path:
    base, tuned = svc.names.find(project_id, name)
    if tuned is not None and tuned.adapter_sha256 is not None:
        return svc.settings.adapters_dir / tuned.adapter_sha256
    if tuned is not None and base.sha256 is not None:
        return base.path
    raise BadRequest(
        f"'{name}' is a base model; its files lie on the server: `tunesmith base list` says where.",
        param="model",
    )


class _Pipe:
    """Takes what the archive writes and hands it on; it cannot be sought in."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, content: bytes) -> int:
        self._parts.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole


def zipped(directory: Path) -> Iterator[bytes]:
    """The files of a directory, stored as they are: weights do not get smaller."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(path for path in directory.rglob("*") if path.is_file()):
            # The same bytes whenever it is asked for: no time of its own.
            entry = zipfile.ZipInfo(path.relative_to(directory).as_posix())
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as out:
                while piece := source.read(CHUNK_BYTES):
                    out.write(piece)
                    yield pipe.take()
    yield pipe.take()
