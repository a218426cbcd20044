"""llama.cpp as an engine that takes turns (`bench/engine_peers.py`).

Run by the Python of an environment with llama-cpp-python, which has the library's C functions. A
context has one set of adapters at a time, so rows of different adapters are computed one after
another, as llama.cpp's own server does it.
"""

from __future__ import annotations

import argparse
import ctypes
from pathlib import Path

import llama_cpp as lib
import numpy
from turns import take_turns

MAX_ROWS, MAX_LENGTH, PIECE = 32, 256, 512


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapters", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(
        str(options.model).encode(), lib.llama_model_default_params()
    )
    assert model, f"{options.model} cannot be loaded"
    settings = lib.llama_context_default_params()
    settings.n_ctx = MAX_ROWS * MAX_LENGTH
    settings.n_seq_max = settings.n_outputs_max = MAX_ROWS
    settings.n_batch = settings.n_ubatch = PIECE
    settings.n_threads = settings.n_threads_batch = options.threads
    context = lib.llama_init_from_model(model, settings)
    assert context, "the context cannot be made"
    adapters = [lib.llama_adapter_lora_init(model, str(path).encode()) for path in options.adapters]
    assert all(adapters), "an adapter cannot be loaded"
    rows = Rows(context, lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model)))
    take_turns(lambda *given: rows.generate(adapters, *given))


class Rows:
    def __init__(self, context, vocab_size):
        self.context = context
        self.vocab_size = vocab_size
        self.batch = lib.llama_batch_init(PIECE, 0, 1)

    def generate(self, adapters, prompts, num_tokens, num_adapters):
        lib.llama_memory_clear(lib.llama_get_memory(self.context), True)
        used = adapters[:num_adapters]
        groups = [range(len(prompts))]
        if used:
            groups = [range(each, len(prompts), len(used)) for each in range(len(used))]
        else:
            self.use(None)
        found = [[] for _ in prompts]
        lengths = [0] * len(prompts)
        new = [list(ids) for ids in prompts]
        for _ in range(num_tokens):
            for place, group in enumerate(groups):
                if used:
                    self.use(used[place])
                for row, token in self.step(group, new, lengths):
                    found[row].append(token)
                    lengths[row] += len(new[row])
                    new[row] = [token]
        return found

    def use(self, adapter):
        number = int(adapter is not None)
        chosen = (lib.llama_adapter_lora_p_ctypes * 1)(adapter) if number else None
        scales = (ctypes.c_float * 1)(1.0) if number else None
        lib.llama_set_adapters_lora(self.context, chosen, number, scales)

    def step(self, group, new, lengths):
        """The likeliest next id of each row, whose new ids fit in one piece."""
        batch, lasts, used = self.batch, [], 0
        for row in group:
            for offset, token in enumerate(new[row]):
                last = offset == len(new[row]) - 1
                batch.token[used] = token
                batch.pos[used] = lengths[row] + offset
                batch.n_seq_id[used], batch.seq_id[used][0] = 1, row
                batch.logits[used] = last
                lasts += [used] if last else []
                used += 1
        batch.n_tokens = used
        assert lib.llama_decode(self.context, batch) == 0
        scores = (lib.llama_get_logits_ith(self.context, place) for place in lasts)
        shape = (self.vocab_size,)
        best = [int(numpy.ctypeslib.as_array(each, shape=shape).argmax()) for each in scores]
        return list(zip(group, best, strict=True))


if __name__ == "__main__":
    main()
