"""What the parts of a worker share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.config import Settings
from tunesmith.ids import Clock, Rng
from tunesmith.ops.tracing import Tracing
from tunesmith.store.blobs import BlobStore
from tunesmith.store.db import Database


@dataclass(frozen=True)
class Context:
    db: Database
    blobs: BlobStore
    settings: Settings
    clock: Clock
    rng: Rng
    tracing: Tracing = field(default_factory=Tracing)

    def job_dir(self, job_id: str) -> Path:
        return self.settings.jobs_dir / job_id

    def adapter_dir(self, sha256: str) -> Path:
        return self.settings.adapters_dir / sha256

    def model_dir(self, sha256: str) -> Path:
        return self.settings.models_dir / sha256

    def now(self) -> int:
        """Whole seconds since 1970, as rows keep them."""
        return int(self.clock.now())

    def ticking_s(self) -> float:
        """Seconds that only ever grow: for waiting and for leases."""
        return self.db.lease_clock().now_s
