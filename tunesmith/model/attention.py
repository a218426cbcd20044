"""Attention: who sees whom, and what is read from what is seen.

Two forms of one function. `attend` is what is learned through, and what other types than fp32 are
served with. `attend_steadily` is for serving on a CPU: what a position reads has the same bits
whatever is computed beside it, and for the few positions of a step it is two to four times faster.

Shape suffixes as in `decoder.py`; G query heads of one key head, M rows of a product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

# A product of fewer rows may be summed in another order: sizes of a head for each row.
HEAD_SIZE_PER_ROW = 16
# A product over more keys may be summed in parts, of a length that depends on their number.
MAX_KEYS = 256
# A product over fewer may be, too; more are read then, which nobody sees.
MIN_KEYS = 32


@dataclass(frozen=True)
class AttentionRule:
    """How the scores of one layer are formed; the same for every position."""

    window: int | None = None
    """Positions that are seen, the position itself included; None: all before it."""
    scale: float | None = None
    """The factor, where it is not 1 / sqrt(head size)."""
    softcap: float | None = None
    """Scores stay within +-softcap: softcap * tanh(score / softcap). None: as they are."""

    def factor(self, head_size: int) -> float:
        """What a product of query and key is multiplied by."""
        return head_size**-0.5 if self.scale is None else self.scale


class Attention(Protocol):
    """Who sees whom in a pass, and where the keys and values of earlier positions are kept."""

    def __call__(
        self, layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
    ) -> Tensor:
        """What the new positions of one layer read, (B, T, H, D)."""
        ...


class Attend(Protocol):
    """`attend_stored` or `attend_steadily`."""

    def __call__(
        self,
        q_PHD: Tensor,
        k_NSD: Tensor,
        v_NSD: Tensor,
        mask: Tensor | None,
        rule: AttentionRule,
        num_rows: int,
    ) -> Tensor: ...


def causal(
    layer: int, q_BTHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, rule: AttentionRule
) -> Tensor:
    """The `Attention` of whole rows: each position sees itself and what came before it."""
    T = q_BTHD.shape[1]
    mask_BTS = None
    if rule.window is not None and rule.window < T:
        mask_BTS = seen(torch.arange(T, device=q_BTHD.device)[None], T, rule)
    return attend(q_BTHD, k_BTKD.transpose(1, 2), v_BTKD.transpose(1, 2), mask_BTS, rule)


def seen(positions_BT: Tensor, num_stored: int, rule: AttentionRule) -> Tensor:
    """(B, T, S): True where a new position sees a stored one."""
    distance_BTS = positions_BT[..., None] - torch.arange(num_stored, device=positions_BT.device)
    seen_BTS = distance_BTS >= 0
    return seen_BTS if rule.window is None else seen_BTS & (distance_BTS < rule.window)


def attend(
    q_BTHD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_BTS: Tensor | None, rule: AttentionRule
) -> Tensor:
    """Grouped attention (B, T, H, D) of what the mask shows, causal where there is none: True where
    a position is seen or, where scores are not capped, what is added to them."""
    B, T, H, D = q_BTHD.shape
    K, S = k_BKSD.shape[1:3]
    assert mask_BTS is not None or T in (1, S), "stored positions need a mask"
    if rule.softcap is not None:
        return _attend_capped(q_BTHD, k_BKSD, v_BKSD, mask_BTS, rule)
    mask = None if mask_BTS is None else mask_BTS[:, None]
    if T == 1:
        # One new position: the query heads of a group stand in as positions of their key head.
        # Against spreading keys and values over the heads, 1.8x faster in fp32, 5x in bf16.
        q_BKGD = q_BTHD.reshape(B, K, H // K, D)
        out_BKGD = F.scaled_dot_product_attention(
            q_BKGD, k_BKSD, v_BKSD, attn_mask=mask, scale=rule.scale
        )
        return out_BKGD.reshape(B, 1, H, D)
    if q_BTHD.requires_grad and q_BTHD.dtype == torch.bfloat16 and q_BTHD.device.type == "cpu":
        # torch's backward pass there is up to five times slower in bf16 than in fp32 with casts.
        wide = attend(q_BTHD.float(), k_BKSD.float(), v_BKSD.float(), mask_BTS, rule)
        return wide.to(q_BTHD.dtype)
    out_BHTD = F.scaled_dot_product_attention(
        q_BTHD.transpose(1, 2),
        k_BKSD,
        v_BKSD,
        attn_mask=mask,
        is_causal=mask is None,
        scale=rule.scale,
        enable_gqa=True,
    )
    return out_BHTD.transpose(1, 2)


def _attend_capped(
    q_BTHD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, mask_BTS: Tensor | None, rule: AttentionRule
) -> Tensor:
    """`attend` where the scores are capped: torch has no fused form, so they are written out."""
    B, T, H, D = q_BTHD.shape
    K, S = k_BKSD.shape[1:3]
    assert rule.softcap is not None
    if mask_BTS is None:
        positions_BT = torch.arange(S - T, S, device=q_BTHD.device)[None]
        mask_BTS = seen(positions_BT, S, AttentionRule())
    # The heads of a group stand in as more positions, so that no key is copied for them.
    q_BKGTD = q_BTHD.reshape(B, T, K, H // K, D).permute(0, 2, 3, 1, 4)
    scores = (q_BKGTD.reshape(B, K, -1, D) @ k_BKSD.transpose(-1, -2)).float()
    scores = rule.softcap * torch.tanh(scores * (rule.factor(D) / rule.softcap))
    scores_BKGTS = scores.view(B, K, -1, T, S)
    scores_BKGTS = scores_BKGTS.masked_fill(~mask_BTS[:, None, None], -torch.inf)
    weights = scores_BKGTS.softmax(-1).to(v_BKSD.dtype)
    out_BKGTD = (weights.flatten(2, 3) @ v_BKSD).view(B, K, -1, T, D)
    return out_BKGTD.permute(0, 3, 1, 2, 4).reshape(B, T, H, D)


def attend_stored(
    q_PHD: Tensor,
    k_NSD: Tensor,
    v_NSD: Tensor,
    mask: Tensor | None,
    rule: AttentionRule,
    num_rows: int,
) -> Tensor:
    """`attend` of P positions, as many of each row, to keys and values whose N heads lie one after
    the other; the mask is that of `attend`."""
    q_BTHD = q_PHD.view(num_rows, -1, *q_PHD.shape[1:])
    k_BKSD, v_BKSD = (x.view(num_rows, -1, *x.shape[1:]) for x in (k_NSD, v_NSD))
    return attend(q_BTHD, k_BKSD, v_BKSD, mask, rule).reshape(q_PHD.shape)


def attend_steadily(
    q_PHD: Tensor,
    k_NSD: Tensor,
    v_NSD: Tensor,
    mask: Tensor | None,
    rule: AttentionRule,
    num_rows: int,
) -> Tensor:
    """`attend_stored` with products of a kind whose bits do not depend on the number of positions;
    the mask is that of `steady_mask`."""
    P, H, D = q_PHD.shape
    N = len(k_NSD)
    # Before the product: on its way it would be rounded otherwise for some sizes.
    q_PHD = q_PHD * rule.factor(D)
    # The heads of a group stand in as more positions, so that no key is copied for them.
    num, is_step = P * H // N, num_rows == P
    q_NMD = q_PHD.view(N, num, D) if is_step else _grouped(q_PHD, N, num_rows)
    missing = D // HEAD_SIZE_PER_ROW - num
    if missing > 0:
        q_NMD = F.pad(q_NMD, (0, 0, 0, missing))
        mask = mask if mask is None or is_step else F.pad(mask, (0, 0, 0, missing))
    if rule.softcap is not None:
        scores_NMS = torch.bmm(q_NMD, k_NSD.mT).div_(rule.softcap).tanh_().mul_(rule.softcap)
        scores_NMS = scores_NMS if mask is None else scores_NMS.add_(mask)
    elif mask is not None:
        scores_NMS = torch.baddbmm(mask, q_NMD, k_NSD.mT)
    else:
        scores_NMS = torch.bmm(q_NMD, k_NSD.mT)
    out_NMD = _summed(scores_NMS.softmax(-1), v_NSD)
    if missing > 0:
        out_NMD = out_NMD[:, :num]
    if is_step:
        return out_NMD.reshape(P, H, D)
    out_BKGTD = out_NMD.reshape(num_rows, N // num_rows, -1, P // num_rows, D)
    return out_BKGTD.permute(0, 3, 1, 2, 4).reshape(P, H, D)


def steady_mask(seen_BTS: Tensor, num_heads: int, num_groups: int) -> Tensor:
    """What is added to the scores of `attend_steadily`, for K heads with groups of G queries: of
    single positions for each head of each row, else for one row and all its heads."""
    mask_BTS = torch.where(seen_BTS, 0.0, -torch.inf)
    if mask_BTS.shape[1] == 1:
        return mask_BTS.repeat_interleave(num_heads, 0)
    return mask_BTS.repeat(1, num_groups, 1)


def steady_length(num_stored: int) -> int:
    """How many keys `attend_steadily` wants to be given, so that no part of them is too short."""
    beyond = num_stored % MAX_KEYS
    return num_stored + (MIN_KEYS - beyond if 0 < beyond < MIN_KEYS else 0)


def _grouped(q_PHD: Tensor, num: int, num_rows: int) -> Tensor:
    """(N, heads of a group x positions, D)"""
    P, _, D = q_PHD.shape
    q_BTKGD = q_PHD.view(num_rows, P // num_rows, num // num_rows, -1, D)
    return q_BTKGD.permute(0, 2, 3, 1, 4).reshape(num, -1, D)


def _summed(weights_NMS: Tensor, v_NSD: Tensor) -> Tensor:
    S = v_NSD.shape[1]
    if S <= MAX_KEYS:
        return torch.bmm(weights_NMS, v_NSD)
    out_NMD = torch.bmm(weights_NMS[..., :MAX_KEYS], v_NSD[:, :MAX_KEYS])
    for start in range(MAX_KEYS, S, MAX_KEYS):
        keys = slice(start, start + MAX_KEYS)
        out_NMD.baddbmm_(weights_NMS[..., keys], v_NSD[:, keys])
    return out_NMD
