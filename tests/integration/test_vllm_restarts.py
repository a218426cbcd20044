"""The engine's own vLLM process: started, killed, replaced; it answers with what was recorded."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import Answered, Engine, engine_process
from tests.engine_harness import save_adapter
from tests.tiny_base import WIDE, write_tiny_base
from tests.vllm_exchanges import SMALL
from tests.vllm_process import held_by, write_python
from tunesmith.config import load_settings
from tunesmith.errors import AdapterError
from tunesmith.serve.client import EngineClient
from tunesmith.serve.protocol import AdapterRef

NONE: frozenset[int] = frozenset()
# Of a real one, which is started where CONFORMANCE_VLLM says so.
START_S = 900.0 if os.environ.get("CONFORMANCE_VLLM") else 30.0


@dataclass(frozen=True)
class Vllm:
    engine: Engine
    journal: Path
    adapters: list[AdapterRef]
    """Of rank 4, 4, and 12."""

    def ask(self, adapter: AdapterRef | None = None) -> Answered:
        [answer] = self.engine.ask(self.engine.request(adapter=adapter, stop_ids=NONE))
        return answer

    def entries(self) -> list[dict[str, Any]]:
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def starts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.entries() if "pid" in entry]

    def loads_since_the_last_start(self) -> int:
        entries = self.entries()
        last = max(place for place, entry in enumerate(entries) if "pid" in entry)
        paths = [entry.get("request") for entry in entries[last:]]
        return paths.count("/v1/load_lora_adapter")

    def rank(self) -> int:
        arguments = self.starts()[-1]["arguments"]
        return int(arguments[arguments.index("--max-lora-rank") + 1])

    def stats(self) -> dict[str, Any]:
        return asyncio.run(self.engine.client.stats())


@pytest.fixture
def vllm(tmp_path: Path) -> Iterator[Vllm]:
    base = write_tiny_base(tmp_path / "wide", shape=WIDE)
    directory = tmp_path / "elsewhere"
    adapters = [
        save_adapter(base, directory / str(seed), seed, rank)
        for seed, rank in ((1, 4), (2, 4), (3, 12))
    ]
    journal = tmp_path / "journal.jsonl"
    python = write_python(tmp_path / "python", journal)
    given = {"engine": "vllm", "vllm_python": str(python), "vllm_arguments": SMALL}
    with engine_process(tmp_path, **given):
        client = EngineClient(load_settings(data=tmp_path).engine_socket)
        found = Vllm(Engine(client, base, generates_only=True), journal, adapters)
        yield found
        assert [entry for entry in found.entries() if "missing" in entry] == []


def wait_until(holds: Any) -> None:
    end = time.monotonic() + START_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_server_that_dies_is_replaced_and_given_its_adapters(vllm: Vllm) -> None:
    first, second, _ = vllm.adapters
    before = [vllm.ask(), vllm.ask(first), vllm.ask(second)]
    assert [answer.error for answer in before] == [None, None, None]
    assert len(vllm.starts()) == 1

    pid = vllm.starts()[0]["pid"]
    os.kill(pid, signal.SIGSTOP)  # it takes the request, and dies before it answers
    killing = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
    killing.start()
    answer = vllm.ask(first)

    assert answer.ids == before[1].ids
    assert len(vllm.starts()) == 2
    wait_until(lambda: vllm.loads_since_the_last_start() == 2)
    assert vllm.ask(second).ids == before[2].ids
    assert vllm.stats()["message"] is None


def test_an_adapter_of_a_higher_rank_has_it_started_with_room(vllm: Vllm) -> None:
    first, _, large = vllm.adapters
    before = vllm.ask(first)
    assert vllm.rank() == 8
    answer = vllm.ask(large)
    assert answer.error is None and answer.ids != before.ids
    assert vllm.rank() == 16
    assert vllm.ask(first).ids == before.ids
    assert len(vllm.starts()) == 2


def test_an_adapter_above_every_rank_of_vllm_is_refused_at_once(vllm: Vllm, tmp_path: Path) -> None:
    huge = save_adapter(vllm.engine.base, tmp_path / "huge", 4, rank=513)
    answer = vllm.ask(huge)
    assert isinstance(answer.error, AdapterError)
    assert "513" in answer.error.message
    assert vllm.starts() == []


def test_a_start_goes_on_when_the_one_who_asked_hangs_up(vllm: Vllm) -> None:
    held = held_by(vllm.journal)
    held.touch()
    request = vllm.engine.request(stop_ids=NONE, deadline_s=0.2)
    [answer] = vllm.engine.ask(request)
    assert answer.error is not None
    stats = vllm.stats()
    assert stats["state"] == "starting"
    assert "for adapters up to rank 8" in stats["message"]
    held.unlink()
    assert vllm.ask().error is None
    assert len(vllm.starts()) == 1
