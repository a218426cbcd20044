"""Whether the server lives, whether it is ready, and what it counts."""

from __future__ import annotations

from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from tunesmith.api.services import Services, Svc
from tunesmith.errors import EngineError, TunesmithError
from tunesmith.store.repo import jobs

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process answers; says nothing of the others."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(svc: Svc) -> Response:
    """200 when the database and the engine do their part; else 503 and what each of them says."""
    checks = {"database": await run_sync(_database, svc), "engine": await _engine(svc)}
    ready = all(state == "ok" for state in checks.values())
    body: dict[str, Any] = {"status": "ready" if ready else "not ready", "checks": checks}
    headers = {} if ready else {"retry-after": "1"}
    return JSONResponse(body, status_code=200 if ready else 503, headers=headers)


def _database(svc: Services) -> str:
    try:
        with svc.db.read() as conn:
            jobs.count_by_status(conn)
    except TunesmithError as error:
        return error.message
    return "ok"


async def _engine(svc: Services) -> str:
    try:
        state = (await svc.engine.ping())["state"]
    except EngineError as error:
        return error.message
    return "ok" if state == "ready" else str(state)


@router.get("/metrics")
def metrics(svc: Svc) -> Response:
    return Response(generate_latest(svc.metrics.registry), media_type=CONTENT_TYPE_LATEST)
