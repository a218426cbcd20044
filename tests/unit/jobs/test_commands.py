"""Creating, cancelling, pausing and resuming jobs: texts, codes, durability."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.callers import OWNER
from tests.unit.jobs.world import BASE, World, base_info
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.errors import BadRequest, NotFound
from tunesmith.jobs.commands import cancel_job, pause_job, resume_job
from tunesmith.jobs.names import clean_suffix
from tunesmith.jobs.request import NewJob, check
from tunesmith.model.adapter_files import CONFIG, LoraSpec, config_bytes
from tunesmith.store.db import open_database
from tunesmith.store.repo import bases, files, jobs, models

WANDB = {"type": "wandb", "wandb": {"project": "p"}}


def dpo(hyperparameters: Any) -> dict[str, Any]:
    return {"type": "dpo", "dpo": {"hyperparameters": hyperparameters}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.db.close()


def test_a_new_job_is_durable_and_shows_what_was_asked(world: World) -> None:
    job = world.create(
        hyperparameters={"n_epochs": 3, "batch_size": None},
        method={"type": "supervised", "supervised": {"hyperparameters": {"lora_rank": 8}}},
        seed=0,
        metadata={"team": "search"},
        suffix="kiln_ai.123",
    )
    other = open_database(world.settings.data_dir)
    with other.read() as conn:
        assert jobs.get_any(conn, job.id) == job
    other.close()
    assert job.status == "validating_files"
    assert job.seed == 0
    assert job.organization_id == "org-personal"
    assert job.requested == {"n_epochs": 3, "lora_rank": 8}
    assert job.hyperparameters == {
        "n_epochs": 3,
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
        "lora_rank": 8,
    }
    assert world.messages(job.id) == [
        f"Created fine-tuning job: {job.id}",
        f"Validating training file: {world.file_id}",
    ]
    assert all(event.data == {} for event in world.events(job.id))


def test_a_job_on_preferences_shows_its_beta(world: World) -> None:
    job = world.create(method=dpo({"beta": 0.3, "lora_targets": ["q_proj"]}))
    assert job.method == "dpo"
    assert job.requested == {"beta": 0.3, "lora_targets": ["q_proj"]}
    assert job.hyperparameters == {
        "beta": 0.3,
        "n_epochs": "auto",
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
        "lora_targets": ["q_proj"],
    }


def test_a_model_that_is_continued_keeps_the_shape_of_its_adapter(world: World) -> None:
    directory = world.settings.adapters_dir / ("a" * 64)
    directory.mkdir(parents=True)
    (directory / CONFIG).write_bytes(config_bytes(LoraSpec(4, 8.0), ["x.q_proj"], BASE))
    first = world.create()
    with world.db.write() as conn:
        name = "ft:tuned"
        row = models.ModelRow(
            name, DEFAULT_PROJECT, "tuned", BASE, BASE, "a" * 64, first.id, 1, "org-personal"
        )
        models.insert(conn, row)
    error = refusal(world, model=name, hyperparameters={"lora_rank": 8})
    assert error.param == "hyperparameters.lora_rank"
    assert error.message.startswith("The model to be continued has lora_rank 4")
    same = {"lora_rank": 4, "lora_alpha": 8, "lora_rslora": "auto", "lora_targets": "all"}
    assert world.create(model=name, hyperparameters=same).start_adapter == "a" * 64


def test_a_seed_is_made_up_where_none_is_given(world: World) -> None:
    assert 0 <= world.create().seed < 2**31


def test_an_alias_keeps_the_requested_name(world: World) -> None:
    with world.db.write() as conn:
        bases.set_alias(conn, "gpt-3.5-turbo", BASE, 1)
    job = world.create(model="gpt-3.5-turbo")
    assert (job.model, job.model_label, job.base) == ("gpt-3.5-turbo", "gpt-3.5-turbo", BASE)


def refusal(world: World, **fields: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        world.create(**fields)
    return caught.value


def test_linears_that_the_base_does_not_have_are_refused(world: World, tmp_path: Path) -> None:
    config = {"model_type": "phi3", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
    wanted = {"lora_targets": ["o_proj", "q_proj"]}
    config_file = tmp_path / "config.json"
    with world.db.write() as conn:
        bases.insert(conn, base_info(BASE, tmp_path))
    config_file.write_text(json.dumps(config))
    error = refusal(world, method=dpo(wanted))
    assert error.message == (
        "The base model has no linear layers called 'q_proj'. It has down_proj, gate_up_proj, "
        "o_proj, qkv_proj; or say all, attention or mlp."
    )
    assert error.code == "invalid_hyperparameters"
    assert error.param == "hyperparameters.lora_targets"
    world.create(hyperparameters={"lora_targets": ["o_proj", "qkv_proj"]})
    world.create(hyperparameters={"lora_targets": "attention"})
    # Transformers alone knows the linears of this one; the others are told of at the start.
    for content in (json.dumps(config | {"model_type": "gpt_neox"}), "{}", "{", "[]"):
        config_file.write_text(content)
        assert world.create(hyperparameters=wanted).requested == wanted
    config_file.unlink()
    config_file.mkdir()
    assert world.create(hyperparameters=wanted).requested == wanted


def test_unknown_model(world: World) -> None:
    error = refusal(world, model="gpt-9")
    assert error.code == "model_not_available"
    assert error.param == "model"
    assert error.message.startswith(
        "Model gpt-9 is not available for fine-tuning or does not exist."
    )


def test_files_that_cannot_be_used(world: World) -> None:
    error = refusal(world, training_file="file-gone")
    assert (error.message, error.param) == ("invalid training_file: file-gone", "training_file")
    batch = world.add_file(purpose="batch")
    error = refusal(world, validation_file=batch)
    assert error.param == "validation_file"
    assert "'batch'" in error.message
    with world.db.write() as conn:
        files.mark_deleted(conn, DEFAULT_PROJECT, world.file_id, 1)
    assert refusal(world).message == f"invalid training_file: {world.file_id}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": ""}, "suffix"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"seed": True}, "seed"),
        ({"seed": 10**5000}, "seed"),
        ({"model": "m" * 300}, "model"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 0}},
            "hyperparameters.learning_rate_multiplier",
        ),
        (
            {"hyperparameters": {"learning_rate_multiplier": 10**5000}},
            "hyperparameters.learning_rate_multiplier",
        ),
        ({"hyperparameters": {"beta": 0.1}}, "hyperparameters.beta"),
        ({"method": dpo({"beta": 3})}, "hyperparameters.beta"),
        ({"method": dpo({"beta": 0})}, "hyperparameters.beta"),
        ({"method": {"type": "dpo", "dpo": 3}}, "method.dpo"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": 3}}}, "method.dpo.hyperparameters"),
        ({"hyperparameters": {"lora_targets": []}}, "hyperparameters.lora_targets"),
        (
            {"hyperparameters": {"finetuning_type": "full", "lora_rank": 4}},
            "hyperparameters.lora_rank",
        ),
        ({"method": {"type": "reinforcement"}}, "method"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"method": {"type": "supervised", "supervised": 3}}, "method.supervised"),
        ({"integrations": [{"type": "magic"}]}, "integrations[0].type"),
        ({"integrations": [{"type": "wandb", "wandb": {}}]}, "integrations[0].wandb.project"),
        ({"integrations": [WANDB | {"pad": "x" * 5000}]}, "integrations[0]"),
        ({"integrations": [WANDB] * 6}, "integrations"),
        (
            {
                "hyperparameters": {"n_epochs": 2},
                "method": {"supervised": {"hyperparameters": {"n_epochs": 3}}},
            },
            "hyperparameters.n_epochs",
        ),
    ],
)
def test_bad_parameters_are_named(world: World, fields: dict[str, Any], param: str) -> None:
    error = refusal(world, **fields)
    assert error.param == param
    assert len(error.message) < 400
    with world.db.read() as conn:
        assert jobs.page(conn, DEFAULT_PROJECT).rows == []


def test_auto_in_one_place_leaves_the_number_of_the_other() -> None:
    newer = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}}
    request = NewJob("m", "f", method=newer, hyperparameters={"n_epochs": 4})
    assert check(request) == {"n_epochs": 4}


@settings(max_examples=50, deadline=None)
@given(st.none() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2))
def test_any_json_as_hyperparameter_is_taken_or_refused(value: Any) -> None:
    try:
        taken = check(NewJob("m", "f", hyperparameters={"n_epochs": value}))
    except BadRequest:
        return
    assert taken in ({}, {"n_epochs": value})


@given(st.text(min_size=1, max_size=64))
def test_suffixes_in_names(suffix: str) -> None:
    cleaned = clean_suffix(suffix)
    assert 1 <= len(cleaned) <= 64
    assert set(cleaned) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")


def test_the_same_idempotency_key_makes_one_job(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: world.create("key-1", suffix="a").id, range(20)))
    assert len(set(made)) == 1
    other = World(world.settings.data_dir)
    assert other.db is not world.db
    assert world.create("key-1", suffix="a").id == made[0]
    with pytest.raises(BadRequest, match="different request body"):
        world.create("key-1", suffix="b")
    with pytest.raises(BadRequest, match="1 to 255"):
        world.create("")
    assert world.create("key-2", suffix="a").id != made[0]
    other.db.close()


def test_requests_on_jobs_that_nobody_holds(world: World) -> None:
    job = world.create()
    with pytest.raises(BadRequest, match="cannot be paused"):
        pause_job(world.db, world.clock, OWNER, job.id)
    with pytest.raises(BadRequest, match="cannot be resumed"):
        resume_job(world.db, world.clock, OWNER, job.id)
    with world.db.write() as conn:
        jobs.update(conn, job.id, status="queued")
    assert pause_job(world.db, world.clock, OWNER, job.id).status == "paused"
    assert resume_job(world.db, world.clock, OWNER, job.id).status == "queued"
    done = cancel_job(world.db, world.clock, OWNER, job.id)
    assert (done.status, done.finished_at) == ("cancelled", int(world.clock.now()))
    with pytest.raises(BadRequest, match="already ended: its status is 'cancelled'"):
        cancel_job(world.db, world.clock, OWNER, job.id)
    assert world.messages(job.id)[2:] == [
        "The job has been paused",
        "The job has been resumed",
        "The job has been cancelled",
    ]


def test_requests_on_no_job(world: World) -> None:
    for command in (cancel_job, pause_job, resume_job):
        with pytest.raises(NotFound) as caught:
            command(world.db, world.clock, OWNER, "ftjob-none")
        assert caught.value.message == "Could not find fine tune: ftjob-none"
