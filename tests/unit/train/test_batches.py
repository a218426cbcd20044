"""Order and batches: every row once an epoch, nothing lost or doubled, never over the budget."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.render import Example
from tunesmith.errors import JobError
from tunesmith.train.batches import Corpus, Order, epoch_order, longest_first, micro_batches, pack
from tunesmith.train.objective import longest_unit, untaught

orders = st.builds(
    Order,
    seed=st.integers(0, 2**31),
    num_rows=st.integers(1, 40),
    batch_size=st.integers(1, 50),
    num_epochs=st.integers(1, 6),
)


def example(number: int, length: int) -> Example:
    """`length` ids, the last two supervised."""
    ids = [number * 1000 + place for place in range(length)]
    return Example(ids, [0.0] * (length - 2) + [1.0, 0.5], number)


@given(orders)
def test_each_epoch_sees_each_row_once(order: Order) -> None:
    seen = [row for step in range(1, order.total_steps + 1) for row in order.rows(step)]
    assert len(seen) == order.num_rows * order.num_epochs
    for epoch in range(order.num_epochs):
        part = seen[epoch * order.num_rows : (epoch + 1) * order.num_rows]
        assert sorted(part) == list(range(order.num_rows))


@given(orders)
def test_every_epoch_ends_once_and_the_last_step_ends_the_last(order: Order) -> None:
    ends = [order.epoch_ended_by(step) for step in range(1, order.total_steps + 1)]
    assert ends[-1] == order.num_epochs
    found = [epoch for epoch in ends if epoch is not None]
    assert found == sorted(set(found))
    if order.batch_size <= order.num_rows:
        assert found == list(range(1, order.num_epochs + 1))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert epoch_order(1, 0, 10) == epoch_order(1, 0, 10)
    assert epoch_order(1, 0, 10) != epoch_order(1, 1, 10)
    assert epoch_order(1, 0, 10) != epoch_order(2, 0, 10)
    # A job that was started by an earlier version has to go on in the same order.
    assert epoch_order(7, 0, 10) == [2, 1, 0, 9, 5, 8, 6, 7, 4, 3]


@given(st.lists(st.tuples(st.integers(3, 60), st.booleans()), max_size=30), st.integers(1, 40))
def test_typical_rows_are_as_long_as_the_rest_and_teach_something(
    rows: list[tuple[int, bool]], num: int
) -> None:
    examples = [example(number, length) for number, (length, _) in enumerate(rows, 1)]
    for each, (length, teaches) in zip(examples, rows, strict=True):
        each.weights[:] = each.weights if teaches else [0.0] * length
    found = Corpus(examples).typical(num)
    taught = sorted(length for length, teaches in rows if teaches)
    assert len(set(found)) == len(found) == min(num, len(taught))
    assert all(rows[row][1] for row in found)
    if len(found) == len(taught):
        return
    lengths = [rows[row][0] for row in found]
    assert lengths == sorted(lengths)
    # A row of each part of the rows, at the mean of that part or the next longer one.
    assert num == 1 or taught[0] <= lengths[0] <= lengths[-1] <= taught[-1]
    if num == 1:
        assert lengths == [min(each for each in taught if each * len(taught) >= sum(taught))]


@given(st.lists(st.integers(3, 60), min_size=1, max_size=30), st.integers(1, 100))
def test_micro_batches_hold_every_sequence_once_within_the_budget(
    lengths: list[int], max_tokens: int
) -> None:
    corpus = Corpus(example(number, length) for number, length in enumerate(lengths, 1))
    units = [[sequence] for sequence in corpus.sequences(range(len(lengths)))]
    batches = list(micro_batches(corpus, longest_first(corpus, units), max_tokens))
    firsts = [batch.ids_1T[0, batch.positions_1T[0] == 0] for batch in batches]
    assert sorted(torch.cat(firsts).tolist()) == [1000 * n for n in range(1, len(lengths) + 1)]
    for batch in batches:
        assert batch.ids_1T.numel() == sum(batch.lengths)
        assert sum(batch.lengths) <= max_tokens or len(batch.lengths) == 1
    assert sum(len(batch.targets_N) for batch in batches) == 2 * len(lengths)
    in_order = [length for batch in batches for length in batch.lengths]
    assert in_order == sorted(in_order, reverse=True)


def test_a_unit_stays_in_one_row() -> None:
    corpus = Corpus(example(number, length) for number, length in enumerate([5, 9, 4, 8], 1))
    batches = list(micro_batches(corpus, [[0, 1], [2, 3]], max_tokens=20))
    assert [batch.lengths for batch in batches] == [(8, 4), (7, 3)]


def test_a_batch_predicts_the_next_token_of_supervised_positions() -> None:
    corpus = Corpus([example(1, 4), example(2, 5)])
    batch = pack(corpus, [0, 1])
    assert batch.ids_1T.tolist() == [[2000, 2001, 2002, 2003, 1000, 1001, 1002]]
    assert batch.positions_1T.tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert batch.lengths == (4, 3)
    assert batch.index_N.tolist() == [2, 3, 5, 6]
    assert batch.targets_N.tolist() == [2003, 2004, 1002, 1003]
    assert batch.weights_N.tolist() == [1.0, 0.5, 1.0, 0.5]
    assert corpus.total_weight([0, 1]) == 3.0
    assert corpus.num_supervised([0]) == 2
    assert corpus.num_tokens([0, 1]) == 9
    assert corpus.answer_ends() == {1003, 2004}


def test_a_row_of_several_sequences_stays_together() -> None:
    corpus = Corpus([example(1, 5), example(1, 7), example(2, 4)])
    assert corpus.num_rows == 2
    assert corpus.sequences([0]) == [0, 1]
    assert corpus.num_tokens([0]) == 12
    assert longest_unit(untaught(corpus, None), range(2)) == 6


def test_the_answers_of_a_pair_count_together() -> None:
    corpus = Corpus([example(1, 5), example(1, 5), example(2, 7), example(2, 3)])
    rows = [longest_unit(untaught(corpus, 0.1), [row]) for row in (0, 1)]
    assert rows == [8, 8]
    assert [longest_unit(untaught(corpus, None), [row]) for row in (0, 1)] == [4, 6]


def test_nothing_to_learn_has_a_name() -> None:
    corpus = Corpus([Example([1, 2, 3], [0.0, 0.0, 0.0], 1)])
    with pytest.raises(JobError) as caught:
        corpus.total_weight([0])
    assert caught.value.code == "nothing_supervised"


def test_an_empty_corpus() -> None:
    corpus = Corpus([])
    assert (corpus.num_rows, corpus.num_sequences) == (0, 0)


@given(st.lists(st.lists(st.integers(0, 1), min_size=3, max_size=9), min_size=1, max_size=8))
def test_equal_beginnings_are_in_a_row_once(sequences: list[list[int]]) -> None:
    """Every position finds the prefix that it ends, and no prefix is there twice."""
    weights = [0.0, 1.0, *[0.5] * 7]
    corpus = Corpus(
        Example(ids, weights[: len(ids)], number) for number, ids in enumerate(sequences, 1)
    )
    numbers = corpus.sequences(range(len(sequences)))
    plain, row = pack(corpus, numbers), pack(corpus, numbers, share=True)
    if row.shared is None:
        assert torch.equal(row.ids_1T, plain.ids_1T)
        return
    places, firsts = row.shared.places_P.tolist(), row.shared.firsts_T.tolist()
    ordered = [sequences[number] for number in row.sequences]
    prefixes = [tuple(ids[: end + 1]) for ids in ordered for end in range(len(ids) - 1)]
    assert len({(prefix, place) for prefix, place in zip(prefixes, places, strict=True)}) == len(
        set(prefixes)
    )
    assert sorted(set(places)) == list(range(row.ids_1T.numel())) == list(range(len(set(prefixes))))
    assert [places[first] for first in firsts] == list(range(len(firsts)))
    ends = [prefixes[first] for first in firsts]
    assert row.ids_1T[0].tolist() == [prefix[-1] for prefix in ends]
    assert row.positions_1T[0].tolist() == [len(prefix) - 1 for prefix in ends]
    supervised = [prefixes[place] for place in plain.index_N.tolist()]
    assert [ends[place] for place in row.index_N.tolist()] == supervised
    assert torch.equal(row.targets_N, plain.targets_N)
