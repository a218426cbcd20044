"""Figures of the whole service for /metrics, read from the database at each scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tunesmith.ids import Clock
from tunesmith.store.db import Database
from tunesmith.store.repo import jobs, outbox, trackers


class StoreMetrics(Collector):
    """The same from every API process of a server, and not reset by a restart."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    def describe(self) -> list[Metric]:
        """Nothing: registering it reads no database."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._clock.now()
        with self._db.read() as conn:
            counts = jobs.count_by_status(conn)
            waiting_since = jobs.waiting_since(conn)
            trained_tokens = jobs.trained_tokens(conn)
            backlog = outbox.backlog(conn)
            num_trackers = trackers.num_open(conn)
        text = "Fine-tuning jobs by status."
        status = GaugeMetricFamily("tunesmith_jobs", text, None, ["status"])
        for name, count in counts.items():
            status.add_metric([name], count)
        yield status
        yield GaugeMetricFamily(
            "tunesmith_queue_age_seconds",
            "How long the job that has waited longest for a worker has waited.",
            0.0 if waiting_since is None else max(0.0, now - waiting_since),
        )
        yield CounterMetricFamily(
            "tunesmith_trained_tokens", "Tokens that ended jobs were trained on.", trained_tokens
        )
        rows = GaugeMetricFamily(
            "tunesmith_outbox", "Deliveries by what became of them.", None, ["channel", "state"]
        )
        age = GaugeMetricFamily(
            "tunesmith_outbox_age_seconds",
            "How long the oldest waiting delivery has waited.",
            None,
            ["channel"],
        )
        for channel, found in backlog.items():
            rows.add_metric([channel, "waiting"], found.num_waiting)
            rows.add_metric([channel, "dead"], found.num_dead)
            age.add_metric([channel], 0.0 if found.oldest_at is None else now - found.oldest_at)
        yield rows
        yield age
        yield GaugeMetricFamily(
            "tunesmith_trackers_open", "Runs of trackers that are not complete.", num_trackers
        )
