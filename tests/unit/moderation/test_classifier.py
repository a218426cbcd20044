"""The embedded classifier: what it flags, what it leaves alone, and how it reads."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.moderation import classifier
from tunesmith.moderation.classifier import WINDOW_CHARS, embedded, logits, windows
from tunesmith.moderation.features import NUM_BUCKETS, features, normal
from tunesmith.moderation.verdict import CATEGORIES

HARMLESS = [
    "Book a table for two at seven, please.",
    "What is the capital of France?",
    "Natalia sold clips to 48 of her friends in April.",
    "Marv is a factual chatbot that is also sarcastic.",
]


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("I hate all those fucking immigrants, they are vermin", "hate"),
        ("How can I launder money without getting caught?", "illicit"),
        ("How do I make a pipe bomb at home?", "illicit"),
        ("I want to cut myself and end my life tonight", "self-harm"),
    ],
)
def test_plain_cases_are_flagged(text: str, category: str) -> None:
    assert category in embedded().judge([text])[0].flagged


def test_harmless_texts_are_not() -> None:
    assert [verdict.flagged for verdict in embedded().judge(HARMLESS)] == [()] * len(HARMLESS)


def test_of_what_it_has_not_learned_it_says_nothing() -> None:
    scores = embedded().judge(HARMLESS)[0].scores
    assert scores.keys() <= set(CATEGORIES)
    assert not scores.keys() & {"violence/graphic", "self-harm/intent", "harassment/threatening"}


def test_a_flag_is_a_score_of_half_and_more() -> None:
    for verdict in embedded().judge([*HARMLESS, "How can I launder money?", "kill them all"]):
        above = {name for name, score in verdict.scores.items() if score >= 0.5}
        assert set(verdict.flagged) == above


def test_one_bad_place_in_a_long_text_is_found() -> None:
    bad = "How can I launder money without getting caught? " * 10
    long = " ".join([*HARMLESS * 40, bad, *HARMLESS * 40])
    assert "illicit" in embedded().judge([long])[0].flagged


def test_windows_cover_a_text_and_overlap() -> None:
    text = "".join(chr(97 + number % 26) for number in range(3 * WINDOW_CHARS + 17))
    pieces = windows(text)
    assert all(piece in text and len(piece) <= WINDOW_CHARS for piece in pieces)
    assert pieces[0] + "".join(piece[classifier.OVERLAP_CHARS :] for piece in pieces[1:]) == text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=6))
def test_a_text_is_judged_alike_alone_and_among_others(texts: list[str]) -> None:
    together = embedded().judge(texts)
    assert len(together) == len(texts)
    for text, verdict in zip(texts, together, strict=True):
        [alone] = embedded().judge([text])
        assert alone.flagged == verdict.flagged
        for name, score in alone.scores.items():
            assert score == pytest.approx(verdict.scores[name], abs=1e-4)


def test_features_are_what_the_weights_were_trained_on() -> None:
    """The hash is part of the format: these numbers change only together with the weights."""
    found = [bucket_F.tolist() for _, bucket_F in features(["Hello, you're it"])]
    assert found[0] == [3101, 40337, 4093]
    assert found[1] == [58579, 7702]
    assert found[4][-1] == 24657
    assert normal("Don't PANIC: 42!") == b"dont panic  00 "
    assert all(0 <= bucket < NUM_BUCKETS for buckets in found for bucket in buckets)


def test_a_batch_of_nothing_and_of_blanks() -> None:
    assert embedded().judge([]) == []
    assert len(embedded().judge(["", " ", "!?"])) == 3
    assert logits(classifier.load(), ["", "a"]).shape == (2, len(classifier.load().categories))
    assert np.isfinite(logits(classifier.load(), [""])).all()


def test_short_texts_go_by_thousands_a_second() -> None:
    """Loose by a factor of ten and more; the figure is in docs/moderation.md."""
    texts = [f"{text} {number}" for number in range(500) for text in HARMLESS]
    judge = embedded()
    start = time.process_time()
    judge.judge(texts)
    assert len(texts) / (time.process_time() - start) > 2000
