"""The invariants, each broken on purpose; the smoke test; memory; the plan's choices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.trainer_job import events_of, make_job, result_of, tiny_base
from tunesmith.data.render import Example
from tunesmith.errors import JobError
from tunesmith.model import memory, precision
from tunesmith.model.adapter_files import LoraSpec
from tunesmith.model.greedy import greedy
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.model.memory import available_bytes, is_out_of_memory
from tunesmith.train import forecast, plan
from tunesmith.train.answers import short_answer, shortest
from tunesmith.train.batches import Corpus
from tunesmith.train.checks import check_finite, check_gradients, check_stops
from tunesmith.train.objective import Means
from tunesmith.train.step import Forward
from tunesmith.trainer.process import run

STOP = 7


def corpus(*answers: list[int]) -> Corpus:
    return Corpus(
        Example([1, 5, *answer], [0.0, 0.0] + [1.0] * len(answer), number)
        for number, answer in enumerate(answers, 1)
    )


def test_every_answer_has_to_end_with_a_stop_token() -> None:
    check_stops(corpus([9, 8, STOP], [STOP]), {STOP})
    with pytest.raises(JobError, match="go on for ever") as caught:
        check_stops(corpus([9, STOP], [9, 8]), {STOP})
    assert caught.value.code == "answer_without_stop"


def test_an_answer_in_the_middle_counts_too() -> None:
    two_turns = Example([1, 9, 8, 5, 9, STOP], [0.0, 1.0, 1.0, 0.0, 1.0, 1.0], 1)
    with pytest.raises(JobError, match="token 8"):
        check_stops(Corpus([two_turns]), {STOP})


def test_an_adapter_without_gradient_is_noticed() -> None:
    adapter = Adapter.create({"one": (4, 4), "two": (4, 4)}, LoraSpec(2, 4.0), 0).train()
    for matrix in adapter.b.values():
        matrix.grad = torch.ones_like(matrix)
    check_gradients(adapter)
    for broken in (torch.zeros(4, 2), None):
        adapter.b["two"].grad = broken
        with pytest.raises(JobError, match="adapter of two"):
            check_gradients(adapter)


@pytest.mark.parametrize("means", [Means(float("inf"), 0.5, 1.0), Means(1.0, 0.5, float("nan"))])
def test_a_loss_or_gradient_that_is_no_number_ends_the_job(means: Means) -> None:
    check_finite(Means(1.0, 0.5, 1.0), "training", 3, 9)
    with pytest.raises(JobError, match="step 3 of 9"):
        check_finite(means, "training", 3, 9)


def test_the_smoke_test_answers_the_prompt_with_the_shortest_answer() -> None:
    found = corpus([9, 8, STOP], [9, STOP], [9, 8, 7, STOP])
    assert shortest(found) == ([1, 5], 2)


def test_greedy_decoding_with_a_cache_is_that_without() -> None:
    model = load_model(tiny_base())
    adapter = Adapter.create(model.linears, LoraSpec(2, 4.0), 0)
    prompt = [1, 4, 60, 61, 62, 7, 5]
    # Together with a shorter and a longer prompt.
    others = [prompt[:3], [*prompt, 70, 71, 72]]
    _, found, _ = greedy(model, adapter, [others[0], prompt, others[1]], 12, set())
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(12):
            hidden = model.hidden(torch.tensor([ids]), lora=adapter)
            ids.append(int(model.logits(hidden[0, -1]).argmax()))
    assert found == ids[len(prompt) :]
    [stopped] = greedy(model, adapter, [prompt], 12, {found[4]})
    assert stopped == found[: found.index(found[4]) + 1]


def test_a_model_that_does_not_stop_is_reported(tmp_path: Path) -> None:
    model = load_model(tiny_base())
    adapter = Adapter.create(model.linears, LoraSpec(2, 4.0), 0)
    assert len(short_answer(model, adapter, corpus([9, 9, STOP]), frozenset({10**6}))) == 3 + 16
    job_dir = make_job(tmp_path / "job", hyperparameters={"learning_rate_multiplier": 1e-6})
    run("train", job_dir)
    assert result_of(job_dir).status == "succeeded"
    (event,) = [event for event in events_of(job_dir) if event.key == "smoke"]
    assert event.level == "warn"
    assert "did not end its answer" in event.message


def test_memory_errors_are_told_from_others() -> None:
    text = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA"), RuntimeError(text)):
        assert is_out_of_memory(error)
    for other in (RuntimeError("shapes differ"), ValueError("can't allocate memory")):
        assert not is_out_of_memory(other)
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_large_tensors_are_given_back_where_that_is_asked_for() -> None:
    cpu = torch.device("cpu")
    memory.return_freed_memory()
    large = torch.ones(16 << 20)
    before = memory.used_bytes(cpu)
    del large
    assert memory.used_bytes(cpu) <= before - (60 << 20)


def test_the_control_groups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    free = available_bytes(cpu)
    assert free > 1 << 20
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("500\n")
    assert available_bytes(cpu) > 1 << 20
    (tmp_path / "memory.max").write_text("1500\n")
    assert available_bytes(cpu) == 1000


@pytest.mark.parametrize(
    ("hidden_size", "has_bf16", "expected"),
    [
        (128, True, (torch.float32, 1)),
        (192, True, (torch.float32, 8)),
        (288, False, (torch.float32, 8)),
        (288, True, (torch.bfloat16, 8)),
    ],
)
def test_type_and_threads_follow_the_size_and_the_processor(
    monkeypatch: pytest.MonkeyPatch,
    hidden_size: int,
    has_bf16: bool,
    expected: tuple[torch.dtype, int],
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: has_bf16)
    assert precision.training_on_cpu(1000, hidden_size, 8) == expected
    assert precision.training_on_cpu(40, 192, 8) == (torch.float32, 1)


def test_bf16_needs_a_processor_that_multiplies_it() -> None:
    flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii").split())
    assert precision.multiplies_bf16() == bool(flags & {"avx512_bf16", "amx_tile"})


def test_micro_batches_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(tiny_base())
    full = plan.Plan(
        device="cpu",
        dtype="float32",
        threads=1,
        micro_tokens=2048,
        base_fingerprint="",
        num_examples=10,
        n_epochs=1,
        batch_size=1,
        total_steps=10,
        learning_rate=1e-3,
        lora_rank=4,
        lora_alpha=8,
        lora_dropout=0,
    )
    adapter = Adapter.create(model.linears, LoraSpec(4, 8.0), 0).train()
    forward = Forward(model, "split")

    def fitted(available: int, longest: int = 100) -> plan.Plan:
        monkeypatch.setattr(forecast, "available_bytes", lambda device: available)
        return forecast.fit_memory(full, forward, adapter, longest)

    assert fitted(1 << 30) == full
    assert 100 < fitted(8 << 20).micro_tokens < 2048
    # One sequence that does not fit: layers are computed twice, and then it does.
    tight = fitted(4 << 20, longest=500)
    assert tight.recompute
    assert tight.micro_tokens > fitted(4 << 20).micro_tokens
    assert fitted(0).micro_tokens == 1
