"""What the routes work with: opened once per process, handed to each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request

from tunesmith.api.feed import Feed
from tunesmith.api.meter import Meter
from tunesmith.api.names import Names
from tunesmith.api.renderers import Renderers
from tunesmith.config import Settings
from tunesmith.ids import Clock, Rng
from tunesmith.ops.telemetry import Metrics
from tunesmith.ops.tracing import Tracing
from tunesmith.serve.client import EngineClient
from tunesmith.store.blobs import BlobStore
from tunesmith.store.db import Database


@dataclass(frozen=True)
class Services:
    settings: Settings
    db: Database
    names: Names
    blobs: BlobStore
    engine: EngineClient
    renderers: Renderers
    feed: Feed
    metrics: Metrics
    meter: Meter
    clock: Clock
    rng: Rng
    tracing: Tracing


async def _services(request: Request) -> Services:
    services = request.app.state.services
    assert isinstance(services, Services)
    return services


Svc = Annotated[Services, Depends(_services)]

MAX_PAGE = 10_000
After = Annotated[str | None, Query()]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
