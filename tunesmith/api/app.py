"""The HTTP service: routes within a gate."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.types import ASGIApp

from tunesmith.api import (
    audit_logs,
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
    keys,
    limits,
    live,
    login,
    models,
    moderations,
    news,
    notifications,
    organization,
    progress,
    recipe,
    spend_limits,
    status,
    tokenize,
    ui,
    usage,
    webhooks,
)
from tunesmith.api.feed import Feed
from tunesmith.api.gate import Frame, Gate
from tunesmith.api.keyring import Keyring
from tunesmith.api.meter import Meter
from tunesmith.api.names import Names
from tunesmith.api.renderers import Renderers
from tunesmith.api.services import Services
from tunesmith.api.store_metrics import StoreMetrics
from tunesmith.config import Settings
from tunesmith.errors import TunesmithError
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.limits.limiter import Limiter, LocalLimiter
from tunesmith.ops.telemetry import Metrics
from tunesmith.ops.tracing import open_tracing
from tunesmith.serve.client import EngineClient
from tunesmith.store.blobs import LocalBlobs
from tunesmith.store.db import open_database
from tunesmith.store.repo import keys as keys_repo

log = logging.getLogger("tunesmith.api")

# Those first that are asked for most: each is tried until one has the path.
ROUTERS = (
    chat.router,
    completions.router,
    embeddings.router,
    health.router,
    files.router,
    fine_tuning.router,
    models.router,
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
    organization.router,
    keys.router,
    audit_logs.router,
    moderations.router,
    limits.router,
    spend_limits.router,
    usage.router,
    webhooks.router,
    notifications.router,
)
UI_DIR = Path(__file__).parent.parent / "ui"


def create_app(settings: Settings) -> ASGIApp:
    """The service over the data directory of `settings`. Imports no torch."""
    return assemble(open_services(settings))


def open_services(settings: Settings) -> Services:
    db, clock, metrics = open_database(settings.data_dir), SystemClock(), Metrics()
    metrics.registry.register(StoreMetrics(db, clock))
    return Services(
        settings=settings,
        db=db,
        names=Names(db),
        blobs=LocalBlobs(settings.blobs_dir),
        engine=EngineClient(settings.engine_socket),
        renderers=Renderers(),
        feed=Feed(partial(news.read, db)),
        metrics=metrics,
        meter=Meter(settings, db, limiter(settings), metrics, clock),
        clock=clock,
        rng=SystemRng(),
        tracing=open_tracing("api", settings.otel_url),
    )


def assemble(services: Services) -> ASGIApp:
    """The routes within the gate."""
    settings, db = services.settings, services.db
    pepper = keys_repo.load_pepper(settings.data_dir)
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else None
    keyring = Keyring(db, pepper, services.clock, settings.run_dir, token)
    gate = Gate(routes(services), keyring, db.version)
    app = ui.Ui(gate, ui.read_bundle(UI_DIR))
    return Frame(app, services.rng, services.metrics, settings.organization, services.tracing)


def limiter(settings: Settings) -> Limiter:
    """In this process, or in the Redis that several API processes share."""
    if settings.redis_url is None:
        return LocalLimiter()
    try:
        from tunesmith.limits.redis import RedisLimiter
    except ImportError:
        raise TunesmithError(
            "redis_url needs a library: pip install 'tunesmith[redis]', or leave the setting out."
        ) from None
    return RedisLimiter(settings.redis_url.get_secret_value())


def routes(services: Services) -> FastAPI:
    """The routes alone, without the gate around them."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        services.meter.start()
        yield
        await services.meter.close()
        services.db.close()
        await run_sync(services.tracing.close)

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
