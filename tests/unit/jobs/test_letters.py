from __future__ import annotations

from pathlib import Path

from tests.mailbox import Mailbox
from tests.unit.jobs.test_outbox import deliver, deliveries, run_job
from tests.unit.jobs.world import World
from tunesmith.jobs.courier import Courier
from tunesmith.jobs.letters import letter


def test_the_end_of_a_job_arrives_by_e_mail(tmp_path: Path) -> None:
    with Mailbox(login=("ts", "pass-w0rd")) as box:
        world = World(
            tmp_path / "data", smtp_url=box.url, smtp_starttls=False, smtp_from="ts@example.com"
        )
        job_id = run_job(world, metadata={"notify_email": "me@example.com"})
        deliver(Courier(world.context))
    [row] = deliveries(world)
    assert (row.state, row.target) == ("delivered", "me@example.com")
    [got] = box.messages
    job = world.job(job_id)
    assert got["to"] == "me@example.com"
    assert got["subject"] == f"Fine-tuning {job_id}: succeeded"
    text = got.get_content()  # type: ignore[attr-defined]
    assert job.fine_tuned_model is not None and job.fine_tuned_model in text
    assert f"{job.trained_tokens}" in text


def test_a_mail_server_that_is_down_does_not_lose_it(tmp_path: Path) -> None:
    with Mailbox() as box:
        url = box.url
    world = World(tmp_path / "data", smtp_url=url, smtp_starttls=False)
    run_job(world, metadata={"notify_email": "me@example.com"})
    deliver(Courier(world.context))
    [row] = deliveries(world)
    assert row.state == "waiting"


def test_each_end_has_its_letter(tmp_path: Path) -> None:
    world = World(tmp_path / "data")
    job = world.create(suffix="two\nlines")
    world.cancel(job.id)
    cancelled = letter(world.job(job.id), "fine_tuning.job.cancelled")
    assert cancelled.subject == "Fine-tuning twolines: cancelled"
    failed = vars(world.job(job.id)) | {"error": {"code": "c0de", "message": "Line 7 is bad."}}
    text = letter(type(job)(**failed), "fine_tuning.job.failed").text
    assert "Line 7 is bad." in text and "(c0de)" in text
