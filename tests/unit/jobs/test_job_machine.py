"""Random histories of jobs, workers, crashes and requests; the invariants hold after each step.

Workers die (their leases run out or a reboot ends them), trainers die, users cancel, pause and
resume at any point. The store and the worker are the real ones.
"""

from __future__ import annotations

import shutil
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.callers import OWNER
from tests.unit.jobs.world import FakeProcess, World, end, steps, validate
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.errors import BadRequest
from tunesmith.jobdir.control import read_control
from tunesmith.jobdir.layout import EVENTS_FILE
from tunesmith.jobdir.spec import read_spec
from tunesmith.jobs.commands import cancel_job, pause_job, resume_job
from tunesmith.jobs.states import TERMINAL
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.store.repo import job_costs, models, usage
from tunesmith.store.repo.jobs import JobRow
from tunesmith.store.repo.usage import Counts
from tunesmith.tariff import Rates

TOTAL = 4


class Jobs(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.directory = Path(tempfile.mkdtemp(dir=shm if shm.is_dir() else None))
        prices = {"*": Rates(training=Decimal("0.003"))}
        self.world = World(self.directory, train_slots=2, prices=prices)
        self.workers: list[Supervisor] = [self.world.supervisor()]
        self.ids: list[str] = []
        self.ended: dict[str, JobRow] = {}

    def teardown(self) -> None:
        self.world.db.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- users ---

    @precondition(lambda self: len(self.ids) < 4)
    @rule()
    def create(self) -> None:
        self.ids.append(self.world.create().id)

    @precondition(lambda self: self.ids)
    @rule(job=st.integers(0, 3), command=st.sampled_from([pause_job, cancel_job]))
    def request(self, job: int, command: Any) -> None:
        self._request(self.ids[job % len(self.ids)], command)

    @precondition(lambda self: self.ids)
    @rule()
    def resume_all(self) -> None:
        for job_id in self.ids:
            self._request(job_id, resume_job)

    def _request(self, job_id: str, command: Any) -> None:
        try:
            command(self.world.db, self.world.clock, OWNER, job_id)
        except BadRequest as refused:
            assert "cannot be" in refused.message

    # --- workers ---

    @rule(rounds=st.integers(1, 6))
    def proceed(self, rounds: int) -> None:
        """Everyone does some work undisturbed."""
        for _ in range(rounds):
            for process in self.live:
                self._advance(process)
            for worker in self.workers:
                worker.tick()

    @rule(data=st.data())
    def tick(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.workers)).tick()

    @rule(seconds=st.sampled_from([1, 6]))
    def wait(self, seconds: int) -> None:
        self.world.ticking.now_s += seconds
        self.world.clock.value += seconds

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def start_worker(self) -> None:
        self.workers.append(self.world.supervisor())

    # --- trouble ---

    @rule(data=st.data(), kind=st.sampled_from(["kill", "drain", "sleep", "reboot", "process"]))
    def trouble(self, data: st.DataObject, kind: str) -> None:
        if kind == "sleep":
            # They wake up after their leases ran out, still believing in them.
            self.world.ticking.now_s += 40
            self.workers.insert(0, self.world.supervisor())
            self.workers[0].tick()
        elif kind == "reboot":
            self.world.ticking.epoch += "'"
            for process in self.live:
                process.alive = False
            self.workers = [self.world.supervisor()]
        elif kind == "process":
            self._kill_process(data)
        else:
            worker = data.draw(st.sampled_from(self.workers))
            if kind == "drain":
                worker.drain()
            else:
                self.world.ticking.now_s += data.draw(st.sampled_from([0, 40]))
            self.workers.remove(worker)
            self.workers = self.workers or [self.world.supervisor()]

    # --- processes ---

    @property
    def live(self) -> list[FakeProcess]:
        return self.world.executor.live()

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def advance(self, data: st.DataObject) -> None:
        self._advance(data.draw(st.sampled_from(self.live)))

    def _advance(self, process: FakeProcess) -> None:
        if process.phase == "validate":
            validate(process, total_steps=TOTAL)
            return
        self._restore(process)
        asked = read_control(process.job_dir)
        if self._is_fenced(process):
            process.alive = False
        elif asked is not None:
            end(process, "paused" if asked == "pause" else "cancelled", TOTAL)
        elif process.step == TOTAL:
            end(process, "succeeded", TOTAL)
        else:
            steps(process, 1, TOTAL)

    def _kill_process(self, data: st.DataObject) -> None:
        """Some die in the middle of a line; the next start cuts it off."""
        if not self.live:
            return
        process = data.draw(st.sampled_from(self.live))
        log = process.job_dir / EVENTS_FILE
        if log.exists() and data.draw(st.booleans()):
            with log.open("ab") as file:
                file.write(b'{"key":"st')
        process.alive = False

    def _restore(self, process: FakeProcess) -> None:
        """A fresh trainer goes on from its checkpoint: here, one step before the last event."""
        log = process.job_dir / EVENTS_FILE
        if process.step or not log.exists():
            return
        whole = log.read_bytes().rpartition(b"\n")[0]
        log.write_bytes(whole + b"\n" if whole else b"")
        process.step = max(0, len(whole.splitlines()) - 1) % TOTAL

    def _is_fenced(self, process: FakeProcess) -> bool:
        return read_spec(process.job_dir).fence > process.fence

    # --- what must always hold ---

    @invariant()
    def one_live_trainer_with_the_highest_fence(self) -> None:  # I1
        for job_id in self.ids:
            live = [p for p in self.live if p.job_dir.name == job_id]
            assert len({process.fence for process in live}) == len(live)
            assert len(live) - sum(map(self._is_fenced, live)) <= 1

    @invariant()
    def ends_never_change(self) -> None:  # I2
        for job_id in self.ids:
            job = self.world.job(job_id)
            if job_id in self.ended:
                assert job == self.ended[job_id]
            elif job.status in TERMINAL:
                self.ended[job_id] = job
                assert job.finished_at is not None
                assert job.lease_owner is None

    @invariant()
    def success_means_a_model_with_its_files(self) -> None:  # I3
        with self.world.db.read() as conn:
            rows = models.all_rows(conn)
        names = {row.name for row in rows}
        for row in rows:
            assert self.world.context.adapter_dir(row.adapter_sha256).is_dir()
        for job_id in self.ids:
            job = self.world.job(job_id)
            assert (job.status == "succeeded") == (job.fine_tuned_model in names)

    @invariant()
    def nothing_is_lost(self) -> None:  # I4
        for job_id in self.ids:
            self.world.job(job_id)

    @invariant()
    def events_are_gap_free_and_never_repeated(self) -> None:  # I5
        for job_id in self.ids:
            events = self.world.events(job_id)
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            assert len({event.key for event in events}) == len(events)
            done = [event.data["step"] for event in events if event.type == "metrics"]
            assert done == list(range(1, len(done) + 1))
            if self.world.job(job_id).status == "succeeded":
                assert len(done) == TOTAL

    @invariant()
    def every_trained_token_is_accounted_once(self) -> None:
        with self.world.db.read() as conn:
            found = usage.totals(conn, kinds=("training",), start=0, end=2**40, width=2**40)
            costs = [job_costs.get(conn, job_id) for job_id in self.ids]
            spent = usage.spent_in(conn, usage.month_of(int(self.world.clock.now())))
        booked = found[0].counts if found else Counts()
        assert booked.input_tokens == sum(cost.trained_tokens for cost in costs)
        assert booked.nanos == spent.get(DEFAULT_PROJECT, 0) == booked.input_tokens * 3000
        for job_id, cost in zip(self.ids, costs, strict=True):
            job = self.world.job(job_id)
            if job.status == "succeeded":
                assert cost.trained_tokens == job.trained_tokens == 100 * TOTAL
            elif job.trained_tokens is not None:
                assert cost.trained_tokens >= job.trained_tokens


class TestJobs(Jobs.TestCase):
    settings = settings(
        max_examples=25,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
