"""LlamaIndex's OpenAI fine-tune engine, and its LLM under the tuned name.

python llama_index_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import os
import sys
import time

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
os.environ.update(OPENAI_BASE_URL=BASE_URL, OPENAI_API_KEY=API_KEY, OPENAI_API_BASE=BASE_URL)

from llama_index.finetuning import OpenAIFinetuneEngine  # noqa: E402

engine = OpenAIFinetuneEngine(MODEL, TRAINING_FILE)
engine.finetune()
while (job := engine.get_current_job()).status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.5)
assert job.status == "succeeded", job
llm = engine.get_finetuned_model(max_tokens=16, temperature=0)
assert llm.model == job.fine_tuned_model
assert str(llm.complete("What comes after Friday?"))
assert "".join(part.delta or "" for part in llm.stream_complete("What comes after Friday?"))
print("llama-index passed")
