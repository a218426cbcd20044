"""The worker's loop against the real store; processes are files that the test writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.callers import OWNER
from tests.unit.jobs.world import FakeProcess, World, base_info, checkpoint, end, steps, validate
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.jobdir.control import read_control
from tunesmith.jobdir.layout import EVENTS_FILE, LOG_FILE, RESULT_FILE, SPEC_FILE
from tunesmith.jobdir.outcome import Failure
from tunesmith.jobdir.spec import read_spec
from tunesmith.jobs import lease
from tunesmith.jobs.commands import cancel_job, pause_job, resume_job
from tunesmith.jobs.supervisor import Supervisor
from tunesmith.store.repo import bases, checkpoints, files, models


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.db.close()


def test_a_job_from_files_to_model(world: World) -> None:
    job = world.create(suffix="My Intents!", validation_file=world.add_file())
    worker = world.supervisor()
    worker.tick()
    assert world.job(job.id).status == "validating_files"
    assert world.job(job.id).hyperparameters["n_epochs"] == "auto"
    validate(world.only_process(), warnings=["Two examples are the same."])
    worker.tick()
    running = world.job(job.id)
    assert (running.status, running.hyperparameters["n_epochs"]) == ("running", 1)
    process = world.only_process()
    steps(process, 2)
    first = checkpoint(process, epoch=1)
    worker.tick()
    assert world.job(job.id).last_step == 2
    steps(process, 3)
    end(process, "succeeded", checkpoints=[first, checkpoint(process, epoch=2)])
    worker.tick()

    done = world.job(job.id)
    assert done.status == "succeeded"
    assert done.trained_tokens == 500
    assert done.finished_at == int(world.clock.now())
    assert done.lease_owner is None
    name = done.fine_tuned_model
    assert name is not None
    assert name.startswith("ft:tiny:personal:my-intents-:")
    with world.db.read() as conn:
        rows = checkpoints.page(conn, job.id).rows
        served = {row.name: row for row in models.all_rows(conn)}
        result = files.get(conn, DEFAULT_PROJECT, done.result_files[0])
    assert [row.step for row in rows] == [5, 2]
    assert rows[0].model_name == name
    assert rows[1].model_name.endswith(":ckpt-step-2")
    assert rows[1].model_name.split(":")[4] != name.split(":")[4]
    assert set(served) == {row.model_name for row in rows}
    for row in rows:
        assert (
            world.context.adapter_dir(served[row.model_name].adapter_sha256) / "adapter_config.json"
        ).is_file()
    assert world.messages(job.id) == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {job.training_file} and validation file: {job.validation_file}",
        "Two examples are the same.",
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
        *["Step"] * 5,
        f"Checkpoint created at step 2 with Snapshot ID: {rows[1].model_name}",
        f"New fine-tuned model created: {name}",
        "The job has successfully completed",
    ]
    assert result is not None
    assert result.purpose == "fine-tune-results"
    table = world.blobs.open(result.id).read().decode().splitlines()
    assert table[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert table[1] == "1,0.5,,,"
    assert len(table) == 6


def test_bad_files_fail_the_job_with_the_reason(world: World) -> None:
    job = world.create()
    worker = world.supervisor()
    worker.tick()
    text = "Training file has 3 example(s), but must have at least 10 examples"
    validate(world.only_process(), error=Failure("invalid_n_examples", text, param="training_file"))
    worker.tick()
    failed = world.job(job.id)
    assert failed.status == "failed"
    assert failed.error == {
        "code": "invalid_n_examples",
        "message": text,
        "param": "training_file",
    }
    assert world.events(job.id)[-1].level == "error"
    assert world.messages(job.id)[-1] == text
    assert worker.runs == []


def test_files_are_checked_while_all_training_slots_are_taken(world: World) -> None:
    first, second = world.create(), world.create()
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    trainer, validator = sorted(world.executor.live(), key=lambda process: process.phase)
    assert (trainer.phase, validator.phase) == ("train", "validate")
    validate(validator)
    worker.tick()
    assert world.job(first.id).status == "running"
    assert world.job(second.id).status == "queued"
    steps(trainer, 5)
    end(trainer, "succeeded")
    worker.tick()
    assert world.job(second.id).status == "running"


def train(world: World) -> tuple[str, Supervisor]:
    """A job whose trainer has just started, and its worker."""
    job = world.create()
    worker = world.supervisor()
    worker.tick()
    validate(world.only_process())
    worker.tick()
    return job.id, worker


def test_a_crash_is_followed_by_another_launch_under_a_higher_fence(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 2)
    (process.job_dir / LOG_FILE).write_text("Traceback ...\nRuntimeError: bad luck\n")
    process.alive = False
    worker.tick()
    assert world.job(job_id).attempts == 1
    worker.tick()
    again = world.only_process()
    assert again.fence > process.fence
    again.step = 1
    steps(again, 4)
    end(again, "succeeded")
    worker.tick()
    assert world.job(job_id).status == "succeeded"
    kept = [event.data["step"] for event in world.events(job_id) if event.type == "metrics"]
    assert kept == [1, 2, 3, 4, 5]
    assert any("RuntimeError: bad luck" in text for text in world.messages(job_id))


def test_three_crashes_without_progress_end_a_job(world: World) -> None:
    job_id, worker = train(world)
    for _ in range(2):
        steps(world.only_process(), 1)
        world.only_process().alive = False
        worker.tick()
        worker.tick()
    assert world.job(job_id).attempts == 2
    world.only_process().alive = False
    worker.tick()
    failed = world.job(job_id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "server_error"
    assert "3 times in a row after step 1" in failed.error["message"]


def test_progress_between_crashes_grants_new_attempts(world: World) -> None:
    job_id, worker = train(world)
    for step in range(4):
        process = world.only_process()
        process.step = step
        steps(process, 1)
        process.alive = False
        worker.tick()
        worker.tick()
    assert world.job(job_id).status == "running"
    assert world.job(job_id).attempts == 1


def test_a_new_worker_goes_on_with_the_living_trainer(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 2)
    worker.tick()
    text = (process.job_dir / SPEC_FILE).read_bytes()
    world.ticking.now_s += 60
    other = world.supervisor()
    other.tick()
    assert world.only_process() is process
    assert (process.job_dir / SPEC_FILE).read_bytes() == text
    assert world.job(job_id).fence > process.fence
    worker.tick()
    assert worker.runs == []
    steps(process, 3)
    end(process, "succeeded")
    other.tick()
    assert world.job(job_id).status == "succeeded"
    assert [event.seq for event in world.events(job_id)] == list(
        range(1, len(world.events(job_id)) + 1)
    )


def test_a_result_written_while_no_worker_ran_is_published(world: World) -> None:
    job_id, _ = train(world)
    steps(world.only_process(), 5)
    end(world.only_process(), "succeeded")
    world.ticking.epoch = "after the reboot"
    world.executor.is_ready = False
    world.supervisor().tick()
    assert world.job(job_id).status == "succeeded"
    assert world.job(job_id).attempts == 0


def test_a_reboot_counts_as_a_crash_and_resumes(world: World) -> None:
    job_id, _ = train(world)
    steps(world.only_process(), 2)
    world.only_process().alive = False
    world.ticking.epoch = "after the reboot"
    worker = world.supervisor()
    worker.tick()
    worker.tick()
    assert world.job(job_id).status == "running"
    assert world.job(job_id).attempts == 1
    assert len(world.executor.live()) == 1


def test_cancel_reaches_the_trainer_and_keeps_its_checkpoints(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 2)
    assert cancel_job(world.db, world.clock, OWNER, job_id).status == "running"
    worker.tick()
    assert read_control(process.job_dir) == "cancel"
    end(process, "cancelled")
    worker.tick()
    done = world.job(job_id)
    assert (done.status, done.fine_tuned_model, done.result_files) == ("cancelled", None, [])
    with world.db.read() as conn:
        (row,) = models.all_rows(conn)
    assert row.name.endswith(":ckpt-step-2")
    assert world.messages(job_id)[-1] == "The job has been cancelled"


def test_a_trainer_that_ignores_a_cancel_is_killed(world: World) -> None:
    job_id, worker = train(world)
    cancel_job(world.db, world.clock, OWNER, job_id)
    worker.tick()
    world.ticking.now_s += 31
    worker.tick()
    assert world.executor.live() == []
    assert world.job(job_id).status == "cancelled"


def test_cancel_while_files_are_checked(world: World) -> None:
    job = world.create()
    worker = world.supervisor()
    worker.tick()
    cancel_job(world.db, world.clock, OWNER, job.id)
    worker.tick()
    assert world.job(job.id).status == "cancelled"
    assert world.executor.live() == []


def test_pause_and_resume(world: World) -> None:
    job_id, worker = train(world)
    for _ in range(2):
        process = world.only_process()
        steps(process, 1)
        pause_job(world.db, world.clock, OWNER, job_id)
        worker.tick()
        assert read_control(process.job_dir) == "pause"
        end(process, "paused")
        worker.tick()
        assert world.job(job_id).status == "paused"
        resume_job(world.db, world.clock, OWNER, job_id)
        assert world.job(job_id).status == "queued"
        worker.tick()
        assert world.only_process().fence > process.fence
        assert read_control(process.job_dir) is None
        world.only_process().step = process.step
    process = world.only_process()
    steps(process, 3)
    end(process, "succeeded")
    worker.tick()
    assert world.job(job_id).status == "succeeded"
    with world.db.read() as conn:
        assert [row.step for row in checkpoints.page(conn, job_id).rows] == [5, 2, 1]
    texts = world.messages(job_id)
    assert texts.count("The job has been paused") == 2
    assert texts.count("The job has been resumed") == 2


def test_draining_hands_jobs_back_for_the_next_worker(world: World) -> None:
    job_id, worker = train(world)
    steps(world.only_process(), 2)
    waiting = world.create()
    worker.tick()
    worker.drain()
    assert world.executor.live() == []
    assert world.job(job_id).status == "queued"
    assert world.job(waiting.id).status == "validating_files"
    assert world.job(job_id).lease_owner is None
    world.supervisor().tick()
    assert world.job(job_id).status == "running"
    assert world.job(job_id).attempts == 0


def test_a_worker_that_slept_through_its_lease_writes_nothing(world: World) -> None:
    job_id, sleeper = train(world)
    process = world.only_process()
    world.ticking.now_s += 60
    other = world.supervisor()
    other.tick()
    steps(process, 5)
    end(process, "succeeded")
    before = world.job(job_id)
    sleeper.tick()
    assert world.job(job_id) == before
    other.tick()
    assert world.messages(job_id).count("The job has successfully completed") == 1


def test_a_claim_whose_worker_died_before_the_launch_is_no_crash(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 1)
    pause_job(world.db, world.clock, OWNER, job_id)
    worker.tick()
    end(process, "paused")
    worker.tick()
    resume_job(world.db, world.clock, OWNER, job_id)
    assert lease.claim(world.context, ("queued",), lease.owner_name(world.rng)) is not None
    world.ticking.now_s += 60
    other = world.supervisor()
    other.tick()
    # The old result ("paused") is not taken for one of this round.
    assert world.job(job_id).status == "running"
    assert world.job(job_id).attempts == 0
    assert world.only_process().fence > process.fence


def test_a_base_removed_meanwhile_fails_the_job_readably(world: World) -> None:
    job = world.create()
    with world.db.write() as conn:
        bases.remove(conn, "tiny")
        bases.insert(conn, base_info("other"))
    world.supervisor().tick()
    failed = world.job(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert "tunesmith base add" in failed.error["message"]


def garble(process: FakeProcess) -> None:
    with (process.job_dir / EVENTS_FILE).open("ab") as log:
        log.write(b'{"key": "step:\n' + b"\0" * 80 + b"\n\xff\n[]\n")


def test_what_cannot_be_read_of_an_event_log_is_left_out_with_a_warning(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    garble(process)
    steps(process, 2)
    worker.tick()
    steps(process, 1)
    garble(process)
    worker.tick()
    # Another worker, which begins with a log that has lost its end.
    log = process.job_dir / EVENTS_FILE
    log.write_bytes(log.read_bytes()[:-3])
    process.step = 2
    steps(process, 3)
    end(process, "succeeded")
    world.ticking.now_s += 1000
    world.supervisor().tick()
    assert world.job(job_id).status == "succeeded"
    events = world.events(job_id)
    found = [event.data["step"] for event in events if event.type == "metrics"]
    assert found == [1, 2, 3, 4, 5]
    warnings = [event for event in events if event.level == "warn"]
    assert len(warnings) == 2
    assert all("event log cannot be read" in event.message for event in warnings)
    assert sorted(events, key=lambda event: event.created_at) == events


def test_a_directory_in_place_of_the_event_log_holds_nobody_up(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 2)
    worker.tick()
    log = process.job_dir / EVENTS_FILE
    log.unlink()
    log.mkdir()
    worker.tick()
    worker.tick()
    log.rmdir()
    steps(process, 3)
    end(process, "succeeded")
    worker.tick()
    assert world.job(job_id).status == "succeeded"
    assert world.job(job_id).last_step == 5
    warnings = [event.key for event in world.events(job_id) if event.level == "warn"]
    assert warnings == ["warn:events:directory"]


def test_a_damaged_checkpoint_is_never_published(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 5)
    entry = checkpoint(process)
    (process.job_dir / entry.path / "adapter_model.safetensors").write_bytes(b"other")
    end(process, "succeeded", checkpoints=[entry])
    worker.tick()
    failed = world.job(job_id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert "step 5 is damaged" in failed.error["message"]
    with world.db.read() as conn:
        assert models.all_rows(conn) == []


def test_a_job_continues_a_tuned_model_under_its_label(world: World) -> None:
    with world.db.write() as conn:
        bases.set_alias(conn, "gpt-4o-mini", "tiny", 1)
    names = []
    model = "gpt-4o-mini"
    worker = world.supervisor()
    for _ in range(2):
        job = world.create(model=model)
        worker.tick()
        validate(world.only_process())
        worker.tick()
        process = world.only_process()
        names.append(read_spec(process.job_dir).start_adapter)
        steps(process, 5)
        end(process, "succeeded")
        worker.tick()
        model = world.job(job.id).fine_tuned_model or ""
        assert model.startswith("ft:gpt-4o-mini:personal::")
    assert names[0] is None
    assert names[1] is not None
    assert names[1].is_dir()


def test_silence_of_a_living_trainer_is_reported_once(world: World) -> None:
    job_id, worker = train(world)
    for _ in range(20):
        world.ticking.now_s += 100
        worker.tick()
    assert sum("No step has been completed" in text for text in world.messages(job_id)) == 1
    assert world.job(job_id).status == "running"


def test_the_estimate_follows_the_pace(world: World) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 1)
    worker.tick()
    assert world.job(job_id).estimated_finish is None
    world.ticking.now_s += 10
    steps(process, 1)
    worker.tick()
    assert world.job(job_id).estimated_finish == int(world.clock.now()) + 30
    steps(process, 3)
    end(process, "succeeded")
    worker.tick()
    assert world.job(job_id).estimated_finish is None


@pytest.mark.parametrize("broken", ["files.insert", "models.insert", "events.append"])
def test_a_failure_anywhere_in_the_finish_is_undone_and_repeated(
    world: World, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    steps(process, 5)
    worker.tick()
    end(process, "succeeded")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("bad moment")

    with monkeypatch.context() as patch:
        patch.setattr(f"tunesmith.jobs.finish.{broken}", fail)
        worker.tick()
        assert world.job(job_id).status == "running"
        with world.db.read() as conn:
            assert models.all_rows(conn) == []
    world.ticking.now_s += 1
    worker.tick()
    done = world.job(job_id)
    assert done.status == "succeeded"
    with world.db.read() as conn:
        assert [row.name for row in models.all_rows(conn)] == [done.fine_tuned_model]
        assert len(files.page(conn, DEFAULT_PROJECT, purpose="fine-tune-results").rows) == 1


def test_errors_without_end_give_the_job_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id, worker = train(world)
    process = world.only_process()
    end(process, "cancelled")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("always")

    monkeypatch.setattr("tunesmith.jobs.supervisor.finish_training", fail)
    for _ in range(10):
        worker.tick()
        world.ticking.now_s += 11
    assert world.job(job_id).status == "failed"
    assert worker.runs == []


def test_trouble_with_one_job_does_not_touch_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, train_slots=2)
    first, second = world.create(), world.create()
    worker = world.supervisor()
    for _ in range(2):
        worker.tick()
        validate(next(p for p in world.executor.live() if p.phase == "validate"))
    worker.tick()
    one, two = world.executor.live()
    (one.job_dir / RESULT_FILE).write_text("torn")
    steps(two, 5)
    end(two, "succeeded")
    worker.tick()
    assert world.job(first.id).status == "failed"
    assert not one.alive
    assert world.job(second.id).status == "succeeded"
    world.db.close()
