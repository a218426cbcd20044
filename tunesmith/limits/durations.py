"""Times as rate-limit headers write them: Go's durations, such as "6m0s", "1.5s" and "108ms"."""

from __future__ import annotations

import math


def go_duration(seconds: float) -> str:
    """In whole milliseconds, rounded up: who waits that long does not come too early."""
    ms = whole_ms(seconds)
    if ms == 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest_ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest_ms)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def plain_duration(seconds: float) -> str:
    """ "108ms" or "432.5s": never minutes, because scripts read `([\\d.]+)(ms|s)` from messages."""
    ms = whole_ms(seconds)
    return f"{ms}ms" if ms < 1000 else f"{_decimal(ms)}s"


def whole_ms(seconds: float) -> int:
    # Float noise of a few parts in 10^12 is no further millisecond.
    return max(0, math.ceil(seconds * 1000 - 1e-6))


def _decimal(ms: int) -> str:
    """Milliseconds as seconds, without zeros at the end: 8640 -> "8.64"."""
    whole, fraction = divmod(ms, 1000)
    return f"{whole}.{fraction:03d}".rstrip("0").rstrip(".")
