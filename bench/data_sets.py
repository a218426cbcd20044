"""What the checks find in public data sets, made into rows: the table of docs/data.md.

    python bench/data_sets.py DIR [--only NAME] [--keep OUT]

DIR holds a folder for each set, as its repository publishes it; sets that are not there are left
out. Prints a row of the table for each, with the number of rows that each finding names; `--keep`
leaves the converted files for a look.
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.convert import convert
from tunesmith.data.report import Report, report
from tunesmith.data.shapes import Options

Row = dict[str, Any]
Make = Callable[[Path, Path], None]
"""Writes rows to its second argument from the files in its first."""
MODERATION_LABELS = ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")


@dataclass(frozen=True)
class DataSet:
    directory: str
    files: str
    """What is read, in words."""
    make: Make
    method: str = "supervised"
    valid: Make | None = None


def write(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read(path: Path) -> Iterator[Any]:
    opened: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    with opened(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def pair(prompt: str, answer: str, **keys: Any) -> Row:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **keys}


def converted(
    name: str, read_as: str | None = None, skip: bool = False, columns: Mapping[str, str] = {}
) -> Make:
    """As `tunesmith data convert` does it."""

    def make(source: Path, target: Path) -> None:
        path = source / name
        if path.suffix == ".gz":
            path = target.with_suffix(".source.jsonl")
            path.write_bytes(gzip.decompress((source / name).read_bytes()))
        options = Options(columns=columns)
        convert(path, target, "jsonl", read_as=read_as, options=options, skip=skip)

    return make


def function_calls(source: Path, target: Path) -> None:
    """Each question with its first accepted answer as tool calls."""

    def rows() -> Iterator[Row]:
        for name in ("simple_python", "multiple", "parallel"):
            answers = {
                each["id"]: each["ground_truth"]
                for each in read(source / f"answers_BFCL_v4_{name}.json")
            }
            for each in read(source / f"BFCL_v4_{name}.json"):
                tools = [{"type": "function", "function": tool} for tool in each["function"]]
                calls = [
                    {
                        "id": f"call_{number}",
                        "type": "function",
                        "function": {"name": called, "arguments": json.dumps(first(arguments))},
                    }
                    for number, answer in enumerate(answers[each["id"]])
                    for called, arguments in answer.items()
                ]
                answer = {"role": "assistant", "content": None, "tool_calls": calls}
                yield {"messages": [*each["question"][0], answer], "tools": tools}

    write(target, rows())


def first(arguments: dict[str, list[Any]]) -> Row:
    return {name: values[0] for name, values in arguments.items() if values[0] != ""}


def reinforcement(source: Path, target: Path) -> None:
    write(
        target,
        (
            {
                "messages": [{"role": "user", "content": each["question"]}],
                "reference": each["answer"].rsplit("#### ", 1)[1],
            }
            for each in read(source / "train.jsonl")
        ),
    )


def moderation(source: Path, target: Path) -> None:
    write(
        target,
        (
            pair(
                each["prompt"],
                ", ".join(label for label in MODERATION_LABELS if each.get(label)) or "none",
            )
            for each in read(source / "half_a.jsonl")
        ),
    )


def seeds(source: Path, target: Path) -> None:
    write(
        target,
        (
            pair("\n\n".join(filter(None, (each["instruction"], one["input"]))), one["output"])
            for each in read(source / "seed_tasks.jsonl")
            for one in each["instances"]
        ),
    )


def intents(name: str) -> Make:
    return lambda source, target: write(
        target, (pair(each["text"], each["intent"]) for each in read(source / name))
    )


def questions(source: Path, target: Path) -> None:
    write(target, ({"item": each} for each in read(source / "question.jsonl")))


def dialogues(name: str, per_block: bool) -> Make:
    """Lines "User: ..." and "Assistant: ..."; `per_block`: each paragraph is a conversation."""
    turn = re.compile(r"^(User|Assistant): ", re.MULTILINE)

    def talk(text: str) -> Row | None:
        _, *parts = turn.split(text)
        roles = [part.lower() for part in parts[::2]]
        if "user" not in roles[:1] or "assistant" not in roles:
            return None
        last = len(roles) - roles[::-1].index("assistant")
        pairs = zip(roles[:last], parts[1::2], strict=False)
        return {"messages": [{"role": role, "content": said.strip()} for role, said in pairs]}

    def make(source: Path, target: Path) -> None:
        texts = (each["text"] for each in read(source / name))
        if per_block:
            texts = (block for text in texts for block in text.split("\n\n"))
        write(target, filter(None, map(talk, texts)))

    return make


SQL = {"prompt": "question", "completion": "query"}
TWEETS = {"prompt": "tweet", "completion": "class"}
SETS = (
    DataSet(
        "banking77", "`train.csv`, `test.csv`", converted("train.csv"), valid=converted("test.csv")
    ),
    DataSet("bfcl_core", "questions and answers", function_calls),
    DataSet("chatterbot_english", "`conversations.jsonl`", converted("conversations.jsonl")),
    DataSet(
        "davidson_hate_offensive",
        "`labeled_data.csv`",
        converted("labeled_data.csv", read_as="columns", columns=TWEETS),
    ),
    DataSet(
        "defog_sql_eval",
        "`questions_gen_postgres.csv`",
        converted("questions_gen_postgres.csv", skip=True, columns=SQL),
    ),
    DataSet(
        "defog_sql_eval",
        "`instruct_basic_postgres.csv`",
        converted("instruct_basic_postgres.csv", columns=SQL),
    ),
    DataSet(
        "gsm8k",
        "`train.jsonl`, `test.jsonl`",
        converted("train.jsonl"),
        valid=converted("test.jsonl"),
    ),
    DataSet("gsm8k", "`train.jsonl`, as reinforcement rows", reinforcement, "reinforcement"),
    DataSet(
        "hh_rlhf_harmless_test", "`test.jsonl.gz`", converted("test.jsonl.gz", skip=True), "dpo"
    ),
    DataSet("moderation_eval_a", "`half_a.jsonl`", moderation),
    DataSet("mt_bench", "`question.jsonl`, as eval rows", questions, "evals"),
    DataSet("pretrain_text", "`dialogue_mit-bsd`", dialogues("dialogue_mit-bsd_00.jsonl.xz", True)),
    DataSet(
        "pretrain_text",
        "`dialogue_share-alike`",
        dialogues("dialogue_share-alike_cdla-sharing_00.jsonl.xz", False),
    ),
    DataSet("pretrain_text", "`qa_cc-by-sa`", dialogues("qa_cc-by-sa_00.jsonl.xz", True)),
    DataSet("self_instruct_seeds", "`seed_tasks.jsonl`", seeds),
    DataSet("sgd_dialogues", "`dialogues.jsonl.gz`", converted("dialogues.jsonl.gz")),
    DataSet(
        "snips_nlu",
        "`train.jsonl`, `validate.jsonl`",
        intents("train.jsonl"),
        valid=intents("validate.jsonl"),
    ),
    DataSet("taskmaster4", "`dialogues.jsonl.gz`", converted("dialogues.jsonl.gz")),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", help="a set's name")
    parser.add_argument("--keep", type=Path, help="where the converted files stay")
    arguments = parser.parse_args()
    print("| set | rows | findings (rows) |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as directory:
        out = arguments.keep or Path(directory)
        out.mkdir(parents=True, exist_ok=True)
        for number, each in enumerate(SETS):
            if arguments.only in (None, each.directory):
                source = arguments.directory / each.directory
                if source.is_dir():
                    check(each, source, out / f"{number:02}-{each.directory}.jsonl")


def check(each: DataSet, source: Path, path: Path) -> None:
    each.make(source, path)
    valid = path.with_suffix(".valid.jsonl") if each.valid else None
    if each.valid and valid:
        each.valid(source, valid)
    found = report(path, valid=valid, method=each.method)
    print(
        f"| {each.directory}: {each.files} | {found.num_rows:,} | {in_words(found)} |", flush=True
    )


def in_words(found: Report) -> str:
    parts = [f"`{each.code}` {len(each.rows) or 'file'}" for each in found.findings]
    if found.validation:
        parts += [f"valid: `{each.code}` {len(each.rows)}" for each in found.validation.findings]
    return ", ".join(parts) or "none"


if __name__ == "__main__":
    main()
