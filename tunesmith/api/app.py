"""The HTTP service: routes within a gate."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp

from tunesmith.api import (
    chat,
    completions,
    data,
    data_change,
    data_rows,
    demo,
    download,
    embeddings,
    estimate,
    failures,
    files,
    fine_tuning,
    health,
    heat,
    insight,
    live,
    login,
    models,
    news,
    progress,
    recipe,
    status,
    tokenize,
    ui,
)
from tunesmith.api.feed import Feed
from tunesmith.api.gate import Frame, Gate
from tunesmith.api.login import Signer, session_key
from tunesmith.api.renderers import Renderers
from tunesmith.api.services import Services
from tunesmith.config import Settings
from tunesmith.errors import TunesmithError
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.ops.telemetry import Metrics
from tunesmith.serve.client import EngineClient
from tunesmith.store import links
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import open_database
from tunesmith.store.repo import keys

log = logging.getLogger("tunesmith.api")

ROUTERS = (
    health.router,
    files.router,
    fine_tuning.router,
    models.router,
    chat.router,
    completions.router,
    embeddings.router,
    tokenize.router,
    data.router,
    data_rows.router,
    data_change.router,
    demo.router,
    insight.router,
    progress.router,
    estimate.router,
    heat.router,
    recipe.router,
    download.router,
    live.router,
    login.router,
    status.router,
)
UI_DIR = Path(__file__).parent.parent / "ui"


def create_app(settings: Settings) -> ASGIApp:
    """The service over the data directory of `settings`. Imports no torch."""
    return assemble(open_services(settings))


def open_services(settings: Settings) -> Services:
    db = open_database(settings.data_dir)
    return Services(
        settings=settings,
        db=db,
        blobs=LocalBlobs(settings.blobs_dir),
        engine=EngineClient(settings.engine_socket),
        renderers=Renderers(),
        feed=Feed(partial(news.read, db)),
        metrics=Metrics(),
        clock=SystemClock(),
        rng=SystemRng(),
    )


def assemble(services: Services) -> ASGIApp:
    """The routes within the gate."""
    gate = Gate(routes(services), verifier(services), session_reader(services))
    app = ui.Ui(gate, ui.read_bundle(UI_DIR))
    return Frame(app, services.rng, services.metrics, services.settings.organization)


def routes(services: Services) -> FastAPI:
    """The routes alone, without the gate around them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        services.db.close()

    app = FastAPI(
        lifespan=lifespan,
        openapi_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.services = services
    app.state.settings = services.settings
    failures.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def verifier(services: Services) -> Callable[[str], str | None]:
    """Names the id of a key that is valid at this moment, or that an unused link stands for."""
    pepper = keys.load_pepper(services.settings.data_dir)

    def verify(secret: str) -> str | None:
        now = int(services.clock.now())
        if secret.startswith(links.PREFIX):
            key_id = links.redeem(services.settings.run_dir, secret, now)
            return None if key_id is None else _used(services, key_id, now)
        with services.db.read() as conn:
            row = keys.verify(conn, pepper, secret)
        return None if row is None else _used(services, row.id, now)

    return verify


def session_reader(services: Services) -> Callable[[Headers], str | None]:
    """Names the id of the key that a request's session stands for, if that key is in use."""
    signer = Signer.load(services.settings.data_dir)

    def read(headers: Headers) -> str | None:
        now = int(services.clock.now())
        key_id = session_key(signer, headers, now)
        return None if key_id is None else _used(services, key_id, now)

    return read


def _used(services: Services, key_id: str, now: int) -> str | None:
    """Notes the use of a key; None if it is revoked."""
    with services.db.read() as conn:
        row = keys.get(conn, key_id)
    if row is None or row.revoked_at is not None:
        return None
    if keys.needs_touch(row, now):
        _touch(services, key_id, now)
    return key_id


def _touch(services: Services, key_id: str, now: int) -> None:
    try:
        with services.db.write() as conn:
            keys.touch(conn, key_id, now)
    except TunesmithError as error:
        # Worth no refusal: the next request notes it.
        log.warning("the last use of a key was not noted: %s", error.message)
