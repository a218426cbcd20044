"""lm-evaluation-harness: log-likelihoods and generation over completions, and chat.

The tasks are of our own making, since the known ones are downloads.

    python lm_eval_walk.py BASE_URL API_KEY MODEL TRAINING_FILE
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

BASE_URL, API_KEY, MODEL, TRAINING_FILE = sys.argv[1:]
os.environ.update(OPENAI_API_KEY=API_KEY, HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

place = Path(tempfile.mkdtemp(prefix="lm-eval-"))
rows = [json.loads(line)["messages"] for line in Path(TRAINING_FILE).read_text().splitlines()]
content = [{"question": row[1]["content"], "answer": row[2]["content"]} for row in rows]
(place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
COMMON = f"""
dataset_path: json
dataset_kwargs: {{data_files: {{test: {place}/rows.jsonl}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
"""
(place / "chosen.yaml").write_text(
    f"task: walk_choice\noutput_type: multiple_choice{COMMON}"
    'doc_to_choice: ["Paris", "{{answer}}"]\ndoc_to_target: 1\n'
    "metric_list: [{metric: acc}]\n"
)
(place / "said.yaml").write_text(
    f"task: walk_said\noutput_type: generate_until{COMMON}"
    'doc_to_target: "{{answer}}"\ngeneration_kwargs: {until: ["\\n"], max_gen_toks: 8}\n'
    "metric_list: [{metric: exact_match}]\n"
)
tasks = TaskManager(include_path=str(place), include_defaults=False)
COMPLETIONS = (
    f"model={MODEL},base_url={BASE_URL}/completions,tokenizer_backend=remote,auth_token={API_KEY}"
)
CHAT = f"model={MODEL},base_url={BASE_URL}/chat/completions"

for model, arguments, names, is_chat in (
    ("local-completions", COMPLETIONS, ["walk_choice", "walk_said"], False),
    ("local-chat-completions", CHAT, ["walk_said"], True),
):
    found = simple_evaluate(
        model=model,
        model_args=arguments,
        tasks=names,
        task_manager=tasks,
        apply_chat_template=is_chat,
        bootstrap_iters=0,
    )
    assert found is not None
    assert set(found["results"]) == set(names), found["results"]
    print(model, found["results"])
print("lm-eval passed")
