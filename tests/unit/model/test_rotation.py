"""Rotations: what transformers does not show, and so the equality tests cannot."""

from __future__ import annotations

import torch

from tunesmith.model.rope_rules import LongScaling, Rope
from tunesmith.model.rotation import Rotation

LONG = Rope(1e4, LongScaling((1.0, 1.1), (2.0, 5.0), 8, 1.2), share=0.5)


def test_a_rows_neighbours_do_not_decide_which_factors_hold() -> None:
    """Several sequences in one row, some over the original length: each as if alone."""
    rotation = Rotation(LONG, 8, torch.device("cpu"))
    lengths = (9, 8, 1, 3, 20)
    packed_1T = torch.cat([torch.arange(length) for length in lengths])[None]
    alone = [rotation(torch.arange(length)[None], torch.float32) for length in lengths]
    packed = rotation(packed_1T, torch.float32)
    for side in (0, 1):
        assert torch.equal(packed[side], torch.cat([each[side] for each in alone], 1))


def test_a_single_position_belongs_to_a_sequence_that_ends_there() -> None:
    rotation = Rotation(LONG, 8, torch.device("cpu"))
    whole = rotation(torch.arange(12)[None], torch.float32)[1]
    ends = rotation(torch.tensor([[11], [7]]), torch.float32)[1]
    assert torch.equal(ends[0, 0], whole[0, 11])
    assert not torch.allclose(ends[1, 0], whole[0, 7])


def test_a_part_of_each_head_turns() -> None:
    cos, sin = Rotation(LONG, 8, torch.device("cpu"))(torch.arange(3)[None], torch.float32)
    assert cos.shape == sin.shape == (1, 3, 1, 4)
    assert cos[0, 0].tolist() == [[torch.tensor(1.2).item()] * 4]
