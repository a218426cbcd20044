"""Durations are read back by Go's rules, and by the expression that scripts use."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.limits.durations import go_duration, plain_duration

UNITS_MS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
SECONDS = st.floats(0, 40 * 86400, allow_nan=False)


def parse(text: str) -> float:
    """Seconds of a Go duration: decimal numbers, each with a unit, the largest unit first."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)(ms|h|m|s)", text)
    assert "".join(number + unit for number, unit in parts) == text
    sizes = [UNITS_MS[unit] for _, unit in parts]
    assert sizes == sorted(set(sizes), reverse=True)
    return sum(float(number) * UNITS_MS[unit] for number, unit in parts) / 1000


@settings(deadline=None)
@given(SECONDS)
def test_a_duration_reads_as_the_same_time_and_never_as_less(seconds: float) -> None:
    assert seconds - 1e-8 <= parse(go_duration(seconds)) < seconds + 0.001001


@settings(deadline=None)
@given(SECONDS)
def test_scripts_read_the_same_from_a_message(seconds: float) -> None:
    found = re.search(
        r"try again in ([\d.]+)(ms|s)", f"Please try again in {plain_duration(seconds)}. Visit"
    )
    assert found is not None
    read = float(found[1].rstrip(".")) / (1000 if found[2] == "ms" else 1)
    assert read == pytest.approx(parse(go_duration(seconds)))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (1, "1s"),
        (360, "6m0s"),
        (0.108, "108ms"),
        (0.0061, "7ms"),
        (8.64, "8.64s"),
        (172.8, "2m52.8s"),
        (86400, "24h0m0s"),
        (60.0000000001, "1m0s"),
    ],
)
def test_the_published_forms(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text
