"""Greedy answers of families whose attention or rotation looks back differently."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.tiny_transformers import build
from tunesmith.model.greedy import greedy
from tunesmith.model.load import load_model


@pytest.mark.parametrize("kind", ["mistral-window", "gemma3", "phi3-long"])
def test_prompts_of_any_length_are_answered_as_if_alone(kind: str, tmp_path: Path) -> None:
    """Some grow past the window of 16, or past the 32 positions of the short factors."""
    build(kind).save_pretrained(tmp_path)
    model = load_model(tmp_path)
    prompts = [list(range(3, 3 + length)) for length in (4, 20, 31, 40)]
    prompts += [list(range(start, start + 30)) for start in range(10, 60, 5)]
    for prompt, answer in zip(prompts, greedy(model, None, prompts, 20, set()), strict=True):
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(20):
                ids.append(int(model.logits(model.hidden(torch.tensor([ids]))[0, -1]).argmax()))
        assert answer == ids[len(prompt) :]
