"""LlamaIndex's OpenAI fine-tune engine, and its LLM under the tuned name.

python llama_index_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import lzma
import os
import sys
import tempfile
import time
from pathlib import Path

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
# Its own check of the file counts with OpenAI's encoding, which would be a download.
ranks = Path(__file__).parents[3] / "tunesmith" / "assets" / "openai" / "cl100k_base.tiktoken.xz"
cache = Path(tempfile.mkdtemp(prefix="tiktoken-"))
(cache / "9b5ad71b2ce5302211f9c61530b329a4922fc6a4").write_bytes(
    lzma.decompress(ranks.read_bytes())
)
os.environ["TIKTOKEN_CACHE_DIR"] = str(cache)
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
