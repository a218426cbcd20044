"""The most likely answers of a model to a few prompts, without an engine."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
from torch import Tensor

from tunesmith.model.attention import AttentionRule, attend, seen
from tunesmith.model.decoder import Decoder, LowRankUpdate
from tunesmith.model.load import CausalModel
from tunesmith.model.transformers_path import TransformersModel


class GrowingCache:
    """The decoder's `Attention` for a few short sequences that grow, padded on the left."""

    def __init__(self, num_padding: list[int]) -> None:
        self._num_padding = num_padding
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        T = q_BTHD.shape[1]
        if layer in self._kept:
            k, v = self._kept[layer]
            k_BTKD, v_BTKD = torch.cat((k, k_BTKD), 1), torch.cat((v, v_BTKD), 1)
        self._kept[layer] = (k_BTKD, v_BTKD)
        mask_BTS = self._mask(T, k_BTKD.shape[1], rule, q_BTHD.device)
        return attend(q_BTHD, k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2), mask_BTS, rule)

    def _mask(self, T: int, S: int, rule: AttentionRule, device: torch.device) -> Tensor:
        places_T = torch.arange(S - T, S, device=device)
        stored_S = torch.arange(S, device=device)
        padding_B11 = torch.tensor(self._num_padding, device=device)[:, None, None]
        # Padding sees itself: a row of scores without any would be no number.
        itself_1TS = (places_T[:, None] == stored_S)[None]
        return seen(places_T[None], S, rule) & ((stored_S >= padding_B11) | itself_1TS)


@torch.no_grad()
def greedy(
    model: CausalModel,
    adapter: LowRankUpdate | None,
    prompts: list[list[int]],
    limit: int,
    stop_ids: Set[int],
) -> list[list[int]]:
    """For each prompt at most `limit` of the most likely ids, through the first stop token."""
    if isinstance(model, TransformersModel):
        return [_one_by_one(model, adapter, prompt, limit, stop_ids) for prompt in prompts]
    width = max(map(len, prompts))
    num_padding = [width - len(prompt) for prompt in prompts]
    padding_B1 = torch.tensor(num_padding, device=model.device)[:, None]
    cache = GrowingCache(num_padding)
    new_BT = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    ids_BT = new_BT
    short = model.short_positions if isinstance(model, Decoder) else None
    answers: list[list[int]] = [[] for _ in prompts]
    for end in range(width, min(width + limit, model.max_positions)):
        if end > width and short is not None and any(end - n == short + 1 for n in num_padding):
            # What was kept of a shorter text is of no use to one that outgrew the short factors.
            cache, new_BT = GrowingCache(num_padding), ids_BT
        places_T = torch.arange(end - new_BT.shape[1], end, device=model.device)
        hidden_BTE = model.hidden(
            new_BT.to(model.device),
            positions_BT=(places_T - padding_B1).clamp(min=0),
            attention=cache,
            lora=adapter,
        )
        new_BT = model.logits(hidden_BTE[:, -1]).argmax(-1, keepdim=True)
        ids_BT = torch.cat((ids_BT, new_BT.cpu()), 1)
        for answer, number in zip(answers, new_BT[:, 0].tolist(), strict=True):
            if not answer or answer[-1] not in stop_ids:
                answer.append(number)
        if all(answer[-1] in stop_ids for answer in answers):
            break
    return answers


def _one_by_one(
    model: TransformersModel,
    adapter: LowRankUpdate | None,
    prompt: list[int],
    limit: int,
    stop_ids: Set[int],
) -> list[int]:
    answer: list[int] = []
    cache: Any = None
    new = prompt
    while len(answer) < limit and len(prompt) + len(answer) < model.max_positions:
        ids_1T = torch.tensor([new], device=model.device)
        hidden_1TE, cache = model.step(ids_1T, cache, adapter)
        new = [int(model.logits(hidden_1TE[0, -1]).argmax())]
        answer += new
        if answer[-1] in stop_ids:
            break
    return answer
