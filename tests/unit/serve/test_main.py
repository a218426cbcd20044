"""The engine process ends rather than hang."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from tunesmith.serve.__main__ import die


def test_a_thread_that_breaks_down_takes_the_process_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(threading, "excepthook", die)

    def work() -> None:
        raise RuntimeError("a fault of ours")

    with caplog.at_level(logging.CRITICAL):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert codes == [1]
    assert "a fault of ours" in caplog.text
