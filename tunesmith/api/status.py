"""/v1/tunesmith/status: how the server and its processes are doing."""

from __future__ import annotations

import shutil
from pathlib import Path

from anyio.to_thread import run_sync
from fastapi import APIRouter

from tunesmith import __version__
from tunesmith.api.services import Services, Svc
from tunesmith.errors import EngineError
from tunesmith.jobs import presence
from tunesmith.store.repo import bases, jobs, models
from tunesmith.wire.status import DiskStatus, EngineStatus, Status, WorkerStatus

router = APIRouter(prefix="/v1/tunesmith")


@router.get("/status")
async def show_status(svc: Svc) -> Status:
    engine = await _engine(svc)
    return await run_sync(_status, svc, engine)


async def _engine(svc: Services) -> EngineStatus:
    try:
        stats = await svc.engine.stats()
    except EngineError as error:
        return EngineStatus(
            state="unreachable",
            message=error.message,
            num_running=0,
            num_waiting=0,
            model_bytes=0,
            budget_bytes=0,
            loaded=[],
        )
    loaded = {
        entry["path"]: [adapter["sha256"] for adapter in entry["adapters"]]
        for entry in stats["bases"]
        if entry["loaded"]
    }
    return EngineStatus(
        state=stats["state"],
        message=stats.get("message"),
        num_running=stats["num_running"],
        num_waiting=stats["num_waiting"],
        model_bytes=stats["model_bytes"],
        budget_bytes=stats["budget_bytes"],
        loaded=await run_sync(_names, svc, loaded),
    )


def _names(svc: Services, loaded: dict[str, list[str]]) -> list[str]:
    """The names of what the engine knows by path and hash."""
    with svc.db.read() as conn:
        known = {Path(base.path): base.name for base in bases.list_all(conn)}
        tuned = models.all_rows(conn)
    hashes = {sha256 for adapters in loaded.values() for sha256 in adapters}
    present = {known[path] for path in map(Path, loaded) if path in known}
    return sorted(present) + [row.name for row in tuned if row.adapter_sha256 in hashes]


def _status(svc: Services, engine: EngineStatus) -> Status:
    disk = shutil.disk_usage(svc.settings.data_dir)
    with svc.db.read() as conn:
        counts = jobs.count_by_status(conn)
    return Status(
        version=__version__,
        organization=svc.settings.organization,
        max_file_bytes=svc.settings.max_file_bytes,
        engine=engine,
        worker=WorkerStatus(
            is_alive=presence.is_any(svc.settings.run_dir), slots=svc.settings.train_slots
        ),
        disk=DiskStatus(free_bytes=disk.free, total_bytes=disk.total),
        jobs=counts,
    )
