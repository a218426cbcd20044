from __future__ import annotations

from typing import Any

import pytest

from tunesmith.data.estimate import (
    Hyperparameters,
    auto_batch_size,
    auto_epochs,
    learning_rate,
    num_steps,
    resolve,
)
from tunesmith.errors import JobError


@pytest.mark.parametrize(
    ("num_examples", "n_epochs"),
    [
        (1, 25), (4, 25), (5, 20), (10, 10), (33, 3), (34, 3), (100, 3), (8333, 3), (8334, 2),
        (25_000, 1), (10**6, 1), (0, 25),
    ],
)  # fmt: skip
def test_auto_epochs(num_examples: int, n_epochs: int) -> None:
    assert auto_epochs(num_examples) == n_epochs


@pytest.mark.parametrize(
    ("num_examples", "batch_size"),
    [(10, 1), (749, 1), (751, 2), (1000, 2), (10_000, 20), (128_000, 256), (10**7, 256)],
)
def test_auto_batch_size(num_examples: int, batch_size: int) -> None:
    assert auto_batch_size(num_examples) == batch_size


def test_steps() -> None:
    assert num_steps(101, 3, 1) == 303  # the published notebook's job
    assert num_steps(10, 10, 3) == 34
    assert num_steps(1, 1, 256) == 1


def test_learning_rate_falls_with_width() -> None:
    assert learning_rate(2000, 1.0) == pytest.approx(5e-4)
    assert learning_rate(2000, 1.0, "dpo") == pytest.approx(5e-5)
    assert learning_rate(2000, 1.0, "supervised", "full") == pytest.approx(5e-5)
    assert learning_rate(2000, 1.0, "dpo", "dora") == pytest.approx(5e-5)
    assert learning_rate(4096, 2.0) == pytest.approx(2 * 5e-4 * (2000 / 4096) ** 0.781)


def test_auto_is_decided_and_numbers_stay() -> None:
    auto = Hyperparameters(n_epochs=10, batch_size=1, learning_rate_multiplier=1.0)
    assert resolve({}, 10) == auto
    assert resolve({"n_epochs": "auto", "batch_size": None, "lora_rank": "auto"}, 10) == auto
    given = {
        "n_epochs": 50,
        "batch_size": 256,
        "learning_rate_multiplier": 0.1,
        "lora_rank": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.5,
        "lora_targets": ["q_proj"],
        "finetuning_type": "dora",
    }
    expected = Hyperparameters(50, 256, 0.1, None, "dora", 8, 16, 0.5, ["q_proj"])
    assert resolve(given, 10) == expected


def test_rank_stabilised_scaling_begins_where_the_plain_one_does() -> None:
    assert (
        resolve({"lora_rslora": True}, 10).lora_alpha / 16**0.5 == resolve({}, 10).lora_alpha / 16
    )


def test_pairs_have_a_beta_and_larger_batches() -> None:
    found = resolve({}, 10, "dpo")
    assert (found.beta, found.batch_size, found.n_epochs) == (0.1, 4, 10)
    assert resolve({"beta": 2, "batch_size": 1}, 10, "dpo").beta == 2
    assert resolve({}, 10_000, "dpo").batch_size == 20


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_epochs", 0), ("n_epochs", 51), ("n_epochs", 1.5), ("n_epochs", "3"), ("n_epochs", True),
        ("batch_size", 0), ("batch_size", 257), ("batch_size", [1]),
        ("learning_rate_multiplier", 0), ("learning_rate_multiplier", -1),
        ("learning_rate_multiplier", float("nan")), ("learning_rate_multiplier", float("inf")),
        ("learning_rate_multiplier", 10**400),
        ("lora_rank", 0), ("lora_rank", 257), ("lora_alpha", 0), ("lora_dropout", 1),
        ("learning_rate", 0.1), ("beta", 0.1),
        ("lora_rslora", 1), ("finetuning_type", "qlora"), ("finetuning_type", []),
        ("lora_targets", []), ("lora_targets", "some"), ("lora_targets", [1]),
        ("lora_targets", ["x" * 65]),
    ],
)  # fmt: skip
def test_refusals(name: str, value: Any) -> None:
    with pytest.raises(JobError) as caught:
        resolve({name: value}, 10)
    assert caught.value.code == "invalid_hyperparameters"
    assert caught.value.param == f"hyperparameters.{name}"
    assert f"'{name}'" in caught.value.message


@pytest.mark.parametrize("beta", [0, -0.1, 2.1, True, "a", float("nan")])
def test_beta_has_its_range(beta: Any) -> None:
    with pytest.raises(JobError, match="'beta'"):
        resolve({"beta": beta}, 10, "dpo")
