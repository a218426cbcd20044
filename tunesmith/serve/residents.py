"""What is loaded: bases and adapters, on demand, within a memory budget.

An adapter is known by the hash of its content. Requests hold leases; what nobody leases stays
until its room is needed, the longest unused first. Loading happens on threads of its own, so
that running answers go on; everything else here belongs to the engine's thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.errors import BaseModelError, EngineError, TunesmithError
from tunesmith.model.load import CausalModel
from tunesmith.model.lora import Adapter
from tunesmith.model.stack import AdapterStack
from tunesmith.serve import loading
from tunesmith.serve.prefix import PrefixCache
from tunesmith.serve.protocol import AdapterRef, Overloaded

# Of the memory, at most this much holds beginnings of texts.
KEPT_SHARE = 0.25

BaseKey = tuple[Path, loading.Signature]
Post = Callable[[Callable[[], None]], None]
Outcome = Callable[[TunesmithError | None], None]


@dataclass(eq=False)
class Entry:
    """Something loaded, or on its way: then `waiting` are told when it is there."""

    num_bytes: int
    value: Any = None
    leases: int = 0
    last_used_s: float = 0.0
    waiting: list[Outcome] | None = field(default_factory=list)

    @property
    def idle(self) -> bool:
        return self.leases == 0 and self.waiting is None

    def when_ready(self, callback: Outcome) -> None:
        if self.waiting is None:
            callback(None)
        else:
            self.waiting.append(callback)

    def settle(self, error: TunesmithError | None) -> None:
        waiting, self.waiting = self.waiting or [], None
        for callback in waiting:
            callback(error)


@dataclass(eq=False, kw_only=True)
class BaseEntry(Entry):
    key: BaseKey
    adapters: dict[str, Entry] = field(default_factory=dict)
    stack: AdapterStack = field(default_factory=AdapterStack)
    """Where adapters in use lie side by side."""


@dataclass(eq=False)
class Lease:
    """The right to use a base, and an adapter on it, until released."""

    base: BaseEntry
    adapter: Entry | None = None

    @property
    def model(self) -> CausalModel:
        model: CausalModel = self.base.value
        return model

    @property
    def lora(self) -> Adapter | None:
        return self.adapter.value if self.adapter else None


class Residents:
    """Bases and adapters in memory. `post` brings a callback to the engine's thread;
    `other_bytes` is what else counts against the budget (the running sequences). A share of the
    budget may go to `kept`, the beginnings of texts, which make way first."""

    def __init__(
        self,
        *,
        budget_bytes: int,
        device: str,
        int8: bool,
        post: Post,
        other_bytes: Callable[[], int],
    ) -> None:
        self.budget_bytes = budget_bytes
        self.kept = PrefixCache(int(KEPT_SHARE * budget_bytes), room=lambda: -self._over())
        self._device = device
        self._int8 = int8
        self._other_bytes = other_bytes
        self._bases: dict[BaseKey, BaseEntry] = {}
        self._retired: list[BaseEntry] = []  # unloaded, but still leased
        self._starved: list[Callable[[], None]] = []
        # Two, so that an adapter of a few milliseconds does not wait for a base of many seconds.
        self._base_loader = Loader("load-bases", post)
        self._adapter_loader = Loader("load-adapters", post)

    @property
    def num_bytes(self) -> int:
        return sum(
            base.stack.num_bytes + sum(part.num_bytes for part in _parts(base))
            for base in (*self._bases.values(), *self._retired)
        )

    def acquire(
        self,
        base_path: Path,
        adapter: AdapterRef | None,
        ready: Callable[[Lease | TunesmithError], None],
    ) -> None:
        """Calls `ready` with a lease once everything is loaded, or with what went wrong."""
        try:
            lease = Lease(self._base(base_path))
        except TunesmithError as error:
            ready(error)
            return
        lease.base.leases += 1

        def answer(error: TunesmithError | None) -> None:
            if error is not None:
                self.release(lease)
            ready(error or lease)

        def with_base(error: TunesmithError | None) -> None:
            if error is not None or adapter is None:
                answer(error)
                return
            try:
                lease.adapter = self._adapter(lease.base, adapter)
            except TunesmithError as problem:
                if isinstance(problem, Overloaded) and self._other_bytes():
                    self._starved.append(lambda: with_base(None))
                else:
                    answer(problem)
                return
            lease.adapter.leases += 1
            lease.adapter.when_ready(answer)

        lease.base.when_ready(with_base)

    @property
    def starving(self) -> bool:
        """Whether adapters wait for memory that running sequences will give back."""
        return bool(self._starved)

    def feed(self) -> None:
        """Tries again to load them."""
        starved, self._starved = self._starved, []
        for load in starved:
            load()

    def release(self, lease: Lease) -> None:
        for entry in (lease.base, lease.adapter):
            if entry is not None:
                entry.leases -= 1
                entry.last_used_s = time.monotonic()
        if lease.base.idle and lease.base in self._retired:
            self._retired.remove(lease.base)

    def unload_base(self, path: Path) -> bool:
        """Forgets the base at `path` and its adapters; False if it is not here.

        Whoever leases it keeps it, and it counts against the budget until then.
        """
        found = [entry for key, entry in self._bases.items() if key[0] == path]
        for entry in found:
            self._retire(entry)
        return bool(found)

    def unload_adapter(self, sha256: str) -> bool:
        """Forgets an adapter; False if it is not here. Whoever leases it keeps it."""
        self.kept.forget(adapter=sha256)
        dropped = [base.adapters.pop(sha256, None) for base in self._bases.values()]
        return any(entry is not None for entry in dropped)

    def make_room(self, num_bytes: int) -> bool:
        """Evicts what is idle until `num_bytes` more fit the budget; False if they cannot. Adapters
        side by side give way, too: those in use are copied anew, rather than turn somebody away."""
        self.kept.evict(max(self._over() + num_bytes, 0))
        stacks = [base.stack for base in (*self._bases.values(), *self._retired)]
        for base in self._bases.values():
            if self._over() + num_bytes > 0 and not base.leases:
                base.stack.clear()
        while (over := self._over() + num_bytes) > 0:
            idle = [(entry, base) for base in self._bases.values() for entry in _parts(base)]
            idle = [(entry, base) for entry, base in idle if entry.idle]
            in_use = over - sum(entry.num_bytes for entry, _ in idle)
            if in_use > sum(stack.num_bytes for stack in stacks):
                return False
            if in_use > 0:
                for stack in stacks:
                    stack.clear()
                continue
            # Of equal age the adapter goes before its base.
            oldest, base = min(idle, key=lambda item: (item[0].last_used_s, item[0] is item[1]))
            if oldest is base:
                self._retire(base)
            else:
                base.adapters = {k: v for k, v in base.adapters.items() if v is not oldest}
        return True

    def _over(self) -> int:
        """By how many bytes the budget is exceeded; negative where some are free."""
        used = self.num_bytes + self._other_bytes() + self.kept.num_bytes
        return used - self.budget_bytes

    def stats(self) -> list[dict[str, Any]]:
        """One object a base: what it is, its memory and leases, and its adapters."""
        return [
            {
                "path": str(base.key[0]),
                "loaded": base.value is not None,
                "num_bytes": base.num_bytes,
                "leases": base.leases,
                **_describe(base.value),
                "adapters": [
                    {"sha256": sha256, "num_bytes": entry.num_bytes, "leases": entry.leases}
                    for sha256, entry in base.adapters.items()
                ],
            }
            for base in (*self._bases.values(), *self._retired)
        ]

    def _base(self, path: Path) -> BaseEntry:
        key = (path, loading.signature(path))
        if entry := self._bases.get(key):
            return entry
        self.unload_base(path)  # the files were replaced: what they held is not served again
        plan = loading.plan_base(path, self._device, self._int8)
        if plan.num_bytes > self.budget_bytes:
            raise BaseModelError(
                f"{path.name} needs {plan.num_bytes >> 20} MiB, and the engine may use "
                f"{self.budget_bytes >> 20} MiB: raise TUNESMITH_ENGINE_MEMORY_BYTES."
            )
        self._take_room(plan.num_bytes)
        entry = BaseEntry(plan.num_bytes, key=key)
        self._bases[key] = entry
        self._base_loader.load(
            entry,
            lambda: loading.load_base(path, self._device, plan),
            on_failure=lambda: self._retire(entry),
        )
        return entry

    def _adapter(self, base: BaseEntry, ref: AdapterRef) -> Entry:
        if entry := base.adapters.get(ref.sha256):
            return entry
        num_bytes = loading.adapter_bytes(ref)
        self._take_room(num_bytes)
        entry = base.adapters[ref.sha256] = Entry(num_bytes)
        self._adapter_loader.load(
            entry,
            lambda: loading.load_adapter(ref, base.value),
            on_failure=lambda: base.adapters.pop(ref.sha256, None),
        )
        return entry

    def _take_room(self, num_bytes: int) -> None:
        if not self.make_room(num_bytes):
            raise Overloaded("The engine's memory is full of models in use. Try again soon.")

    def _retire(self, entry: BaseEntry) -> None:
        self._bases.pop(entry.key, None)
        self.kept.forget(base=entry.key)
        if not entry.idle and entry not in self._retired:
            self._retired.append(entry)


class Loader:
    """Loads one thing after the other, and tells the engine's thread. Each has a thread of its own,
    with which its OpenMP threads end: where they outnumber the processors, none would spin."""

    def __init__(self, name: str, post: Post) -> None:
        self._name = name
        self._post = post
        self._turn = threading.Lock()

    def load(self, entry: Entry, work: Callable[[], Any], on_failure: Callable[[], object]) -> None:
        """Fills `entry` with what `work` returns, or tells those who wait why not."""

        def settle(value: Any, error: TunesmithError | None) -> None:
            if error is None:
                entry.value, entry.num_bytes = value, value.num_bytes
            else:
                on_failure()
            entry.settle(error)

        def task() -> None:
            with self._turn:
                value, error = attempt(work)
            self._post(lambda: settle(value, error))

        threading.Thread(target=task, name=self._name, daemon=True).start()


def attempt(work: Callable[[], Any]) -> tuple[Any, TunesmithError | None]:
    """What `work` returns, and its failure as a value that can go to another thread."""
    try:
        return work(), None
    except TunesmithError as error:
        return None, error
    except Exception as error:  # a damaged file can make any library raise anything
        return None, EngineError(f"The model could not be loaded: {error!r}.")


def _parts(base: BaseEntry) -> list[Entry]:
    return [base, *base.adapters.values()]


def _describe(model: CausalModel | None) -> dict[str, Any]:
    if model is None:
        return {}
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "slow": model.slow,
        "products": getattr(model, "products", "plain"),
    }
