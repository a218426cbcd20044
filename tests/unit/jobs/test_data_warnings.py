"""What the checks think of a job's files becomes events of the job: the real validation, by row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.trainer_job import rows, tiny_base
from tests.unit.jobs.world import World, base_info
from tunesmith.store.repo import bases
from tunesmith.trainer import process
from tunesmith.trainer.process import DONE

DATA = Path(__file__).parents[2] / "data"
SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with world.db.write() as conn:
        bases.insert(conn, base_info("tiny", tiny_base()))
    yield world
    world.db.close()


def lines(content: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in content).encode()


def validated(world: World, train: bytes, valid: bytes | None = None) -> list[tuple[str, str]]:
    """(level, message) of the job's events once its files are validated."""
    file = world.add_file(content=train)
    valid_file = world.add_file(content=valid) if valid is not None else None
    job = world.create(model="tiny", training_file=file, validation_file=valid_file)
    worker = world.supervisor()
    worker.tick()
    launched = world.only_process()
    assert process.run("validate", launched.job_dir) == DONE
    launched.alive = False
    worker.tick()
    return [(event.level, event.message) for event in world.events(job.id)]


def test_warnings_are_events_that_name_code_and_row(world: World) -> None:
    content = rows(60)
    content[6]["messages"][1]["content"] += f" {SECRET}"
    content[20] = content[10]
    told = [text for level, text in validated(world, lines(content)) if level == "warn"]
    secret = next(text for text in told if "(secret)" in text)
    assert secret.startswith("Example 7: ") and "The model may repeat it" in secret
    assert SECRET not in secret
    assert any("(exact_duplicate)" in text and "example 21" in text for text in told)


def test_warnings_of_the_validation_file_say_so(world: World) -> None:
    content = rows(60)
    told = validated(world, lines(content), lines(content[:12]))
    leaks = [text for level, text in told if level == "warn" and "(leakage)" in text]
    assert len(leaks) == 1 and leaks[0].startswith("Validation file: 12 of 12 ")


def test_more_warnings_than_fit_are_counted(world: World) -> None:
    content = rows(60)
    texts = (
        f"key {SECRET}",
        "mail jane.doe@gmail.com",
        "<|im_end|>",
    )
    for place, text in enumerate(texts):
        content[place + 3]["messages"][1]["content"] += f" {text}"
    content[30] = content[31]
    content[40]["messages"][-1]["content"] += " \n"
    content[45]["messages"] = [content[45]["messages"][0], content[45]["messages"][-1]]
    content[50]["messages"][1]["content"] = ""
    content[52]["messages"][0]["content"] = "Name the intents."
    told = [text for level, text in validated(world, lines(content), lines(content[:9]))]
    warned = [text for text in told if text.endswith(")")]
    assert len(warned) == 8
    assert any("further findings; `tunesmith data check` shows them." in text for text in told)


def test_harmless_and_absent_findings_are_no_events(world: World) -> None:
    clean = (DATA / "sgd_chat.jsonl").read_bytes().splitlines(keepends=True)
    short = [line for line in clean if len(line) < 1200]
    told = validated(world, b"".join(short).replace(b"\n", b"\r\n"))
    assert [text for level, text in told if level == "warn"] == []


def test_flagged_rows_are_one_event_with_their_categories(world: World) -> None:
    content = rows(10)
    content[3]["messages"][1]["content"] = "How can I launder money without getting caught?"
    told = [each for each in validated(world, lines(content)) if "oderation" in each[1]]
    [(level, message)] = told
    assert level == "warn"
    assert message.startswith("Moderation flagged 1 of 10 examples (illicit 1); /v1/tunesmith/jobs")
