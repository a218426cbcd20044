"""Order and batches: every row once an epoch, nothing lost or doubled, never over the budget."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.render import Example
from tunesmith.errors import JobError
from tunesmith.train.batches import Corpus, Order, collate, epoch_order, micro_batches

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


@given(st.lists(st.integers(3, 60), min_size=1, max_size=30), st.integers(1, 100))
def test_micro_batches_hold_every_sequence_once_within_the_budget(
    lengths: list[int], max_tokens: int
) -> None:
    corpus = Corpus(example(number, length) for number, length in enumerate(lengths, 1))
    batches = list(micro_batches(corpus, range(len(lengths)), max_tokens))
    found = sorted(int(ids[0]) // 1000 for batch in batches for ids in batch.ids_BT)
    assert found == list(range(1, len(lengths) + 1))
    for batch in batches:
        assert batch.ids_BT.numel() <= max_tokens or len(batch.ids_BT) == 1
    assert sum(len(batch.targets_N) for batch in batches) == 2 * len(lengths)
    widths = [batch.ids_BT.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)


def test_a_batch_predicts_the_next_token_of_supervised_positions() -> None:
    corpus = Corpus([example(1, 5), example(2, 4)])
    batch = collate(corpus, [0, 1])
    assert batch.ids_BT.tolist() == [[1000, 1001, 1002, 1003], [2000, 2001, 2002, 0]]
    assert batch.index_N.tolist() == [2, 3, 5, 6]
    assert batch.targets_N.tolist() == [1003, 1004, 2002, 2003]
    assert batch.weights_N.tolist() == [1.0, 0.5, 1.0, 0.5]
    assert corpus.total_weight([0, 1]) == 3.0
    assert corpus.num_supervised([0]) == 2
    assert corpus.num_tokens([0, 1]) == 9
    assert corpus.answer_ends() == {1004, 2003}


def test_a_row_of_several_sequences_stays_together() -> None:
    corpus = Corpus([example(1, 5), example(1, 7), example(2, 4)])
    assert corpus.num_rows == 2
    assert corpus.sequences([0]) == [0, 1]
    assert corpus.num_tokens([0]) == 12
    assert corpus.longest([0, 1]) == 6
    assert corpus.longest_rows(1) == [0]


def test_nothing_to_learn_has_a_name() -> None:
    corpus = Corpus([Example([1, 2, 3], [0.0, 0.0, 0.0], 1)])
    with pytest.raises(JobError) as caught:
        corpus.total_weight([0])
    assert caught.value.code == "nothing_supervised"


def test_an_empty_corpus() -> None:
    corpus = Corpus([])
    assert (corpus.num_rows, corpus.num_sequences) == (0, 0)
