"""What is loaded is what was asked for, and what is leased stays."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.engine_harness import save_adapter
from tests.tiny_base import write_tiny_base
from tunesmith.errors import AdapterError, BaseModelError, TunesmithError
from tunesmith.model import native
from tunesmith.serve.protocol import AdapterRef, Overloaded
from tunesmith.serve.residents import Lease, Residents
from tunesmith.serve.rows import rows_of

BASE_BYTES = 558_336
ROOMY = 1 << 30


class Desk:
    """`Residents` with this thread as the engine's."""

    def __init__(self, budget_bytes: int) -> None:
        self._posted: queue.Queue[Callable[[], None]] = queue.Queue()
        self.other_bytes = 0
        self.residents = Residents(
            budget_bytes=budget_bytes,
            device="cpu",
            int8=False,
            post=self._posted.put,
            other_bytes=lambda: self.other_bytes,
        )

    def ask(self, base: Path, adapter: AdapterRef | None = None) -> Lease | TunesmithError:
        results: list[Lease | TunesmithError] = []
        self.residents.acquire(base, adapter, results.append)
        while not results:
            self._posted.get(timeout=30)()
        return results[0]

    def lease(self, base: Path, adapter: AdapterRef | None = None) -> Lease:
        result = self.ask(base, adapter)
        assert isinstance(result, Lease), result
        return result

    def touch(self, base: Path, adapter: AdapterRef | None = None) -> None:
        self.residents.release(self.lease(base, adapter))

    def loaded(self) -> dict[str, list[str]]:
        return {
            Path(base["path"]).name: [adapter["sha256"] for adapter in base["adapters"]]
            for base in self.residents.stats()
        }


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("bases")
    return [write_tiny_base(directory / name, seed=seed) for seed, name in enumerate("abc")]


@pytest.fixture(scope="module")
def adapters(bases: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[AdapterRef]:
    directory = tmp_path_factory.mktemp("adapters")
    return [save_adapter(bases[0], directory / str(seed), seed) for seed in range(3)]


def test_one_load_serves_all_who_ask(bases: list[Path], adapters: list[AdapterRef]) -> None:
    desk = Desk(ROOMY)
    first, second = desk.lease(bases[0], adapters[0]), desk.lease(bases[0], adapters[0])
    assert first.model is second.model
    assert first.lora is second.lora is not None
    assert desk.lease(bases[0]).lora is None
    assert desk.residents.num_bytes > BASE_BYTES


def test_the_longest_unused_goes_first(bases: list[Path]) -> None:
    desk = Desk(2 * BASE_BYTES + 100_000)
    for number in (0, 1, 0, 2):
        desk.touch(bases[number])
    assert set(desk.loaded()) == {"a", "c"}


def test_an_adapter_goes_before_its_base(bases: list[Path], adapters: list[AdapterRef]) -> None:
    desk = Desk(BASE_BYTES + 80_000)
    for adapter in (*adapters, adapters[0]):
        desk.touch(bases[0], adapter)
    [kept] = desk.loaded().values()
    assert adapters[0].sha256 in kept
    assert len(kept) < 3


def test_what_is_leased_stays(bases: list[Path]) -> None:
    desk = Desk(BASE_BYTES + 100_000)
    lease = desk.lease(bases[0])
    assert isinstance(desk.ask(bases[1]), Overloaded)
    desk.residents.release(lease)
    desk.touch(bases[1])
    assert set(desk.loaded()) == {"b"}


def test_running_sequences_count_against_the_budget(bases: list[Path]) -> None:
    desk = Desk(2 * BASE_BYTES)
    desk.touch(bases[0])
    desk.other_bytes = BASE_BYTES
    assert desk.residents.make_room(0)
    assert not desk.residents.make_room(BASE_BYTES + 1)
    assert desk.residents.make_room(BASE_BYTES)
    assert desk.loaded() == {}


def test_a_base_beyond_the_budget_is_refused_with_advice(bases: list[Path]) -> None:
    error = Desk(BASE_BYTES // 2).ask(bases[0])
    assert isinstance(error, BaseModelError)
    assert "TUNESMITH_ENGINE_MEMORY_BYTES" in error.message


def test_other_content_than_the_hash_says_is_refused(
    bases: list[Path], adapters: list[AdapterRef], tmp_path: Path
) -> None:
    desk = Desk(ROOMY)
    swapped = AdapterRef(adapters[0].sha256, adapters[1].path)
    assert isinstance(desk.ask(bases[0], swapped), AdapterError)
    half = tmp_path / "half"
    half.mkdir()
    for file in adapters[0].path.iterdir():
        (half / file.name).write_bytes(file.read_bytes()[:-100])
    assert isinstance(desk.ask(bases[0], AdapterRef(adapters[0].sha256, half)), AdapterError)
    missing = AdapterRef("0" * 64, tmp_path / "missing")
    assert isinstance(desk.ask(bases[0], missing), AdapterError)
    # A failure is not remembered, and leaves no lease behind.
    desk.touch(bases[0], adapters[0])
    assert desk.residents.stats()[0]["leases"] == 0


def test_a_failed_base_can_be_asked_for_again(bases: list[Path], tmp_path: Path) -> None:
    desk = Desk(ROOMY)
    broken = write_tiny_base(tmp_path / "d")
    content = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[:1000])
    assert isinstance(desk.ask(broken), BaseModelError)
    assert desk.residents.num_bytes == 0
    (broken / "model.safetensors").write_bytes(content)
    desk.touch(broken)


def test_unloading_spares_leases(bases: list[Path], adapters: list[AdapterRef]) -> None:
    desk = Desk(ROOMY)
    lease = desk.lease(bases[0], adapters[0])
    assert desk.residents.unload_adapter(adapters[0].sha256)
    assert not desk.residents.unload_adapter(adapters[0].sha256)
    assert desk.residents.unload_base(bases[0])
    assert not desk.residents.unload_base(bases[0])
    assert lease.lora is not None
    assert desk.residents.num_bytes == BASE_BYTES
    desk.residents.release(lease)
    assert desk.residents.num_bytes == 0


@torch.inference_mode()
def test_adapters_side_by_side_count_and_go_when_nobody_needs_them(
    bases: list[Path], adapters: list[AdapterRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "library", lambda: None)
    desk = Desk(ROOMY)
    leases = [desk.lease(bases[0], adapter) for adapter in adapters]
    before = desk.residents.num_bytes
    stack = leases[0].base.stack
    rows = rows_of(leases[0].model, len(leases), stack=stack)
    rows.reserve(len(leases), 1)
    for _ in leases:
        rows.add()
    rows.run([[5]] * len(leases), [lease.lora for lease in leases])
    assert stack.num_bytes == sum(lease.lora.num_bytes for lease in leases if lease.lora) > 0
    assert desk.residents.num_bytes == before + stack.num_bytes
    free = ROOMY - desk.residents.num_bytes
    assert not desk.residents.make_room(free + stack.num_bytes + 1)
    assert stack.num_bytes > 0, "nothing goes in vain"
    assert desk.residents.make_room(free + 1), "who comes is more than what can be copied again"
    assert stack.num_bytes == 0 and desk.residents.num_bytes == before
    rows.run([[5]] * len(leases), [lease.lora for lease in leases])
    assert stack.num_bytes > 0
    for lease in leases:
        desk.residents.release(lease)
    assert desk.residents.make_room(free + 1)
    assert stack.num_bytes == 0 and desk.residents.num_bytes == before, "and nothing else went"
