"""Scores and embeddings equal what their definitions say, on both paths."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.engine_harness import TIMEOUT_S, Harness, greedy, save_adapter
from tests.tiny_base import tiny_prompt
from tests.tiny_transformers import build
from tunesmith.errors import EngineError
from tunesmith.model import readout
from tunesmith.model.load import load_model
from tunesmith.model.lora import Adapter
from tunesmith.serve import passes
from tunesmith.serve.protocol import (
    Done,
    EmbedRequest,
    InvalidRequest,
    ScoreRequest,
    pass_from_wire,
    pass_to_wire,
)

PROMPT, REST = tiny_prompt("the quick")[:8], tiny_prompt("brown fox jumps over")[:6]


def compute(engine: Harness, request: Any) -> Any:
    result: queue.Queue[Any] = queue.Queue()
    engine.engine.compute(request, result.put, lambda: False)
    return result.get(timeout=TIMEOUT_S)


def logprobs(base: Path, ids: list[int], lora: Adapter | None = None) -> torch.Tensor:
    model = load_model(base)
    with torch.inference_mode():
        return F.log_softmax(model.logits(model.hidden(torch.tensor([ids]), lora=lora)[0]), -1)


def test_scores_are_the_log_probabilities_of_the_completion(
    engine: Harness, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readout, "SLICE", 4)
    result = compute(engine, ScoreRequest(base, PROMPT, REST, top_logprobs=2))
    expected = logprobs(base, PROMPT + REST)[len(PROMPT) - 1 : -1]
    assert len(result) == len(REST)
    for (logprob, top), row, token in zip(result, expected, REST, strict=True):
        assert logprob == pytest.approx(row[token].item(), abs=1e-4)
        assert [each for each, _ in top] == row.topk(2).indices.tolist()


def test_a_score_is_what_generation_reports(engine: Harness, base: Path) -> None:
    answer = engine.ask(greedy(base, PROMPT, 6, top_logprobs=0))
    result = compute(engine, ScoreRequest(base, PROMPT, answer.ids[0]))
    expected = [entry.logprob for entry in answer.logprobs[0]]
    assert [logprob for logprob, _ in result] == pytest.approx(expected, abs=1e-3)


def test_an_adapter_changes_scores_and_embeddings(
    engine: Harness, base: Path, tmp_path: Path
) -> None:
    ref = save_adapter(base, tmp_path / "adapter", seed=1)
    lora = Adapter.load(ref.path, load_model(base).linears)
    result = compute(engine, ScoreRequest(base, PROMPT, REST, ref))
    expected = logprobs(base, PROMPT + REST, lora)[len(PROMPT) - 1 : -1]
    wanted = expected.gather(1, torch.tensor(REST)[:, None])[:, 0].tolist()
    assert [logprob for logprob, _ in result] == pytest.approx(wanted, abs=1e-3)
    plain, tuned = (compute(engine, EmbedRequest(base, [PROMPT], each)) for each in (None, ref))
    assert plain != tuned


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings_are_pooled_states_of_length_one(
    engine: Harness, base: Path, pooling: Any
) -> None:
    vectors = compute(engine, EmbedRequest(base, [PROMPT, REST, PROMPT], pooling=pooling))
    model = load_model(base)
    with torch.inference_mode():
        states = model.hidden(torch.tensor([REST]))[0]
    expected = F.normalize(states.mean(0) if pooling == "mean" else states[-1], dim=0)
    assert vectors[0] == vectors[2] != vectors[1]
    assert vectors[1] == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_slow_path_scores_alike(tmp_path: Path, engine: Harness) -> None:
    build("gpt-neox").save_pretrained(tmp_path)
    ids = list(range(3, 13))
    result = compute(engine, ScoreRequest(tmp_path, ids[:4], ids[4:]))
    wanted = logprobs(tmp_path, ids)[3:-1].gather(1, torch.tensor(ids[4:])[:, None])[:, 0].tolist()
    assert [logprob for logprob, _ in result] == pytest.approx(wanted, abs=1e-4)


def test_running_answers_go_on_between_passes(engine: Harness, base: Path) -> None:
    ticket = engine.submit(greedy(base, "x", 40))
    vectors = compute(engine, EmbedRequest(base, [PROMPT] * 20))
    assert len(vectors) == 20
    assert isinstance(engine.wait(ticket)[0].end, Done)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda base: ScoreRequest(base, [1], [512]),
        lambda base: ScoreRequest(base, [1] * 2000, [2] * 49),
        lambda base: EmbedRequest(base, [[1], [-1]]),
    ],
)
def test_what_does_not_fit_the_model_is_refused(
    engine: Harness, base: Path, request_of: Any
) -> None:
    assert isinstance(compute(engine, request_of(base)), InvalidRequest)


def test_what_nobody_waits_for_is_not_computed(engine: Harness, base: Path) -> None:
    result: queue.Queue[Any] = queue.Queue()
    asked = iter([False, False, True])
    request = EmbedRequest(base, [PROMPT] * 100)
    engine.engine.compute(request, result.put, lambda: next(asked))
    assert result.get(timeout=TIMEOUT_S) is None
    assert [each["leases"] for each in engine.stats()["bases"] if each["path"] == str(base)] == [0]


def test_a_pass_that_fails_in_whatever_way_ends_alone(
    engine: Harness, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def embed(*_: Any) -> list[float]:
        raise ValueError("a family that cannot")

    with monkeypatch.context() as patch:
        patch.setattr(passes, "embed", embed)
        assert isinstance(compute(engine, EmbedRequest(base, [PROMPT])), EngineError)
    assert len(compute(engine, EmbedRequest(base, [PROMPT]))) == 1


def test_requests_survive_the_wire(base: Path, tmp_path: Path) -> None:
    ref = save_adapter(base, tmp_path / "adapter", seed=1)
    for request in (
        ScoreRequest(base, [1], [2], ref, 3),
        EmbedRequest(base, [[1], [2, 3]], None, "last"),
    ):
        wire = pass_to_wire(request)
        assert pass_from_wire(wire.pop("verb"), wire) == request


@pytest.mark.parametrize(
    "wire",
    [
        {},
        {"base_path": "/b", "inputs": [[]]},
        {"base_path": "/b", "inputs": [[1]], "pooling": "max"},
        {"base_path": "/b", "inputs": [[1]], "more": 1},
        {"base_path": "/b", "inputs": [["a"]]},
        {"base_path": "/b", "inputs": [[1.5]]},
        {"base_path": "/b", "inputs": [1]},
    ],
)
def test_a_pass_that_makes_no_sense_is_refused(wire: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        pass_from_wire("embed", wire)
