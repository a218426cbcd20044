"""The main job as a newcomer meets it: the whole demo, and its model served again afterwards."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from openai import OpenAI

from tunesmith.cli.background import background_server
from tunesmith.cli.demo import expected, read_rows
from tunesmith.shipped import HELD_OUT_FILE


def test_the_model_learns_its_task_and_can_be_served_again(tmp_path: Path) -> None:
    data = tmp_path / "demo"
    command = [sys.executable, "-m", "tunesmith.cli.app", "demo", "--data", str(data)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr + result.stdout[-2000:]
    counts = re.findall(r"(before|after) +\S (\d+) of 280", result.stdout)
    right = {name: int(count) for name, count in counts}
    assert right["before"] <= 28 and right["after"] >= 252, result.stdout
    code = re.search(r'api_key="(sk-[\w-]+)".*model="(ft:[^"]+)"', result.stdout, re.DOTALL)
    assert code is not None
    assert ask_again(data, *code.groups()) >= 6


def ask_again(data: Path, key: str, model: str) -> int:
    """How many of seven held-out rows, one of each intent, a restarted server answers right."""
    rows: list[dict[str, Any]] = read_rows(HELD_OUT_FILE)[:7]
    with background_server(data) as server:
        client = OpenAI(base_url=server.base_url, api_key=key)
        answers = [
            client.chat.completions.create(
                model=model, messages=row["messages"][:-1], temperature=0
            )
            for row in rows
        ]
    texts = [answer.choices[0].message.content for answer in answers]
    return sum(text == expected(row) for text, row in zip(texts, rows, strict=True))
