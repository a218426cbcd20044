"""The part of a base's check that runs its chat template: in a process of its own, under limits.

A template is a program that came with the model. It may loop for hours or ask for all memory, so
the first time it runs is here, where that costs a few seconds and gives a message. Nothing here
needs torch or the weights.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunesmith.bases import BaseInfo, describe
from tunesmith.data.formats import ChatRow
from tunesmith.data.messages import MessageError
from tunesmith.data.render import Example, Renderer
from tunesmith.errors import BaseModelError
from tunesmith.ids import SystemClock

# A tokenizer of 256,000 entries takes some seconds and 1 GB to read; a template, milliseconds.
MAX_CPU_S = 30
MAX_WALL_S = 120
MAX_MEMORY_BYTES = 4 << 30

TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "Which city lies on the Spree?"},
    {"role": "assistant", "content": "Berlin"},
    {"role": "user", "content": "And on the \u00d8resund \u2014 \u6771\u4eac, or another?"},
    {"role": "assistant", "content": "Copenhagen"},
]
# Long enough that a template whose cost explodes with the conversation meets its limit.
NUM_LONG_TURNS = 32


@dataclass(frozen=True)
class Finding:
    """One thing the check has to say about a base. An error means: do not register it."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    fix: str = ""
    """What to do; empty where the message says it or there is nothing to do."""


@dataclass(frozen=True)
class TemplateReport:
    info: BaseInfo | None
    """None if an error forbids even a description."""
    findings: list[Finding]
    end_ids: list[int] = field(default_factory=list)
    """The ids that end an answer in training."""
    samples: list[list[int]] = field(default_factory=list)
    """Rendered conversations of different lengths."""


def probe_template(directory: Path, name: str) -> TemplateReport:
    """Describes the base and tries its template, in a process that cannot run away."""
    command = [sys.executable, "-m", __name__, str(directory), name, str(MAX_CPU_S)]
    # One thread: with a pool for each core the address space alone would meet the limit.
    environment = {
        **os.environ,
        "MALLOC_ARENA_MAX": "2",
        "RAYON_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MAX_WALL_S, env=environment
        )
    except subprocess.TimeoutExpired:
        return TemplateReport(None, [_runaway()])
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return TemplateReport(None, [_runaway()])
    if done.returncode != 0:
        reason = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
        return TemplateReport(
            None, [Finding("template", "error", f"The template could not be tried: {reason}")]
        )
    return _from_json(json.loads(done.stdout))


def inspect(directory: Path, name: str) -> TemplateReport:
    """What `probe_template` does, in this process."""
    try:
        info = describe(directory, name, SystemClock())
        renderer = Renderer.load(directory)
    except BaseModelError as error:
        return TemplateReport(None, [Finding("describe", "error", str(error))])
    try:
        examples = renderer.examples(ChatRow(1, 1, TALK))
        findings = _try_conversations(renderer, examples)
        samples = [renderer.prompt(TALK[:2]), renderer.prompt(TALK[:4])]
    except MessageError as error:
        failed = Finding(
            "template",
            "error",
            f"The chat template fails on a plain conversation: {error}.",
            "Replace it by the template of the model's family (chat_template.jinja).",
        )
        return TemplateReport(None, [failed])
    ends = {number for example in examples for number in _ends(example)}
    return TemplateReport(info, findings, sorted(ends), samples)


def _try_conversations(renderer: Renderer, examples: list[Example]) -> list[Finding]:
    renderer.examples(ChatRow(1, 1, [TALK[0], *TALK[1:3] * NUM_LONG_TURNS]))
    findings = []
    if not all(_is_served(renderer, examples, turn) for turn in (2, 4)):
        findings.append(
            Finding(
                "prefix",
                "error",
                "A conversation does not begin with the ids of the prompt that it answers.",
                "Use a template that only appends as a conversation goes on.",
            )
        )
    if not all(number in renderer.stop_ids for example in examples for number in _ends(example)):
        findings.append(
            Finding(
                "stop",
                "error",
                "The last supervised token of an answer is not a stop token.",
                "Let the template write eos_token after each assistant message.",
            )
        )
    return findings + _special_tokens(renderer) + _capabilities(renderer)


def _is_served(renderer: Renderer, examples: list[Example], turn: int) -> bool:
    """Whether some example supervises this turn right after the prompt it is served with."""
    prompt = renderer.prompt(TALK[:turn])
    return any(
        example.ids[: len(prompt)] == prompt and any(example.weights[len(prompt) :][:1])
        for example in examples
    )


def _ends(example: Example) -> list[int]:
    """The last id of each supervised span."""
    after = [*example.weights[1:], 0.0]
    spans = zip(example.ids, example.weights, after, strict=True)
    return [number for number, weight, next_weight in spans if weight and not next_weight]


def _special_tokens(renderer: Renderer) -> list[Finding]:
    """Text of a user that spells control tokens must stay text; and one BOS is enough."""
    added = renderer.tokenizer.get_added_tokens_decoder()
    special = {number: token.content for number, token in added.items() if token.special}
    plain, hostile = (
        renderer.prompt([{"role": "user", "content": text}])
        for text in ("Hello", "Hello " + "".join(special.values()))
    )
    findings = []
    if [n for n in plain if n in special] != [n for n in hostile if n in special]:
        findings.append(
            Finding(
                "injection",
                "error",
                "Text in a message can produce the control tokens of the template.",
                "Mark the control tokens as special in tokenizer.json.",
            )
        )
    if plain[:1] == plain[1:2] and plain[0] in special:
        findings.append(
            Finding(
                "bos",
                "warning",
                f"A prompt begins with {special[plain[0]]} twice.",
                "Take the second one out of the chat template.",
            )
        )
    return findings


def _capabilities(renderer: Renderer) -> list[Finding]:
    findings = []
    if not renderer.preserves_history:
        text = "The template rewrites earlier turns: a conversation is trained turn by turn."
        findings.append(Finding("history", "info", text))
    if not renderer.has_tools:
        text = "The template has no place for tools: rows with tools or tool calls are refused."
        findings.append(Finding("tools", "info", text))
    elif renderer.call_syntax is None:
        text = "The template does not show how calls are written: they stay text in answers."
        findings.append(Finding("calls", "info", text))
    return findings


def _runaway() -> Finding:
    return Finding(
        "template",
        "error",
        f"The chat template takes more than {MAX_CPU_S} s for a short conversation.",
        "Replace it by the template of the model's family (chat_template.jinja).",
    )


def _from_json(report: dict[str, Any]) -> TemplateReport:
    info = report["info"]
    return TemplateReport(
        info=BaseInfo(**{**info, "path": Path(info["path"])}) if info else None,
        findings=[Finding(**finding) for finding in report["findings"]],
        end_ids=report["end_ids"],
        samples=report["samples"],
    )


def _limit(cpu_s: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # macOS refuses limits on the address space
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))


if __name__ == "__main__":
    _limit(cpu_s=int(sys.argv[3]))
    print(json.dumps(asdict(inspect(Path(sys.argv[1]), sys.argv[2])), default=str))
