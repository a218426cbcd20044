"""How the server is doing, as the web app's first page shows it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class EngineStatus(BaseModel):
    state: str
    """"ready", "starting", "draining" or "unreachable"."""
    message: str | None
    """Why it cannot be reached, or what it is waiting for."""
    num_running: int
    num_waiting: int
    model_bytes: int
    budget_bytes: int
    loaded: list[str]
    """Names of models that are in memory."""


class WorkerStatus(BaseModel):
    is_alive: bool
    slots: int
    """Jobs that it trains at the same time."""


class DiskStatus(BaseModel):
    free_bytes: int
    total_bytes: int


class Status(BaseModel):
    object: Literal["tunesmith.status"] = "tunesmith.status"
    version: str
    organization: str
    max_file_bytes: int
    engine: EngineStatus
    worker: WorkerStatus
    disk: DiskStatus
    jobs: dict[str, int]
    """How many there are, by status."""
