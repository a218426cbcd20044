"""`tunesmith data`: each command on real rows, on broken files, and what it says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run, problem
from tunesmith.cli import app, data_show, data_stats
from tunesmith.data.formats import read_rows
from tunesmith.errors import DataError, TunesmithError
from tunesmith.jobdir.events import EventLine
from tunesmith.jobdir.files import write_record
from tunesmith.jobdir.layout import EVENTS_FILE, RESULT_FILE, SPEC_FILE
from tunesmith.jobdir.outcome import Result
from tunesmith.jobdir.spec import BaseRef, FileRef, Spec
from tunesmith.jobs.rate import past_rate

ROOT = Path(app.__file__).parents[2]
TRAIN = ROOT / "tunesmith/assets/demo/snips_train.jsonl"
REAL = ROOT / "tunesmith/assets/demo/snips_heldout.jsonl"
PRETTY = ROOT / "tests/tutorials/marv_pretty.json"
MARV = ROOT / "tests/tutorials/marv.jsonl"


def written(path: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def chat(*texts: str, **keys: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"messages": messages, **keys}


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Twelve good rows and five bad ones."""
    rows = [json.loads(line) for line in REAL.open(encoding="utf-8")][:12]
    bad = [
        "{'messages': []",
        chat("What?"),
        chat("Hi", "Yo", colour="red"),
        {"messages": [{"role": "Human", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
        rows[0],
    ]
    return written(tmp_path / "broken.jsonl", *rows, *bad)


# -- check --------------------------------------------------------------------------------------


def test_check_of_real_rows(run: Run) -> None:
    result = run("data", "check", TRAIN)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""  # no progress bar, nor what it leaves, where there is no terminal
    for text in (
        "1,204 rows, chat",
        "No errors found",
        "Num examples missing system message: 0",
        "num_total_tokens_per_example",
        'what the notebook prints as "p5 / p95"',
        "10th and the 90th percentile",
        "tunesmith-nano",
        "cl100k_base",
        "46,496",
        "o200k_base",
        "Ready",
    ):
        assert text in result.output


def test_check_names_rows_effects_and_fixes(run: Run, broken: Path) -> None:
    result = run("data", "check", broken, "--no-openai")
    assert result.exit_code == 1
    for text in (
        "last_not_assistant  row 14",
        "unknown_key",
        "effect",
        "fix",
        "Blocked",
        "data fix",
    ):
        assert text in result.output, result.output
    assert "cl100k" not in result.output


def test_strict_fails_on_warnings(run: Run, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in REAL.open(encoding="utf-8")]
    path = written(tmp_path / "a.jsonl", *rows[:60], rows[0])
    assert run("data", "check", path).exit_code == 0
    strict = run("data", "check", path, "--strict")
    assert strict.exit_code == 1 and "Not clean" in strict.output


def test_check_as_json_and_sarif(run: Run, broken: Path, tmp_path: Path) -> None:
    sarif = tmp_path / "out.sarif"
    result = run("data", "check", broken, "--json", "--sarif", sarif)
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and not found["ok"]
    assert {"invalid_json", "last_not_assistant"} <= {each["code"] for each in found["findings"]}
    assert found["notebook"]["errors"]["unrecognized_role"] == 1
    assert set(found["openai_tokens"]) == {"cl100k_base", "o200k_base"}
    log = json.loads(sarif.read_text())
    assert log["version"] == "2.1.0" and log["runs"][0]["results"]


def test_check_tells_what_a_cut_would_lose(run: Run, tmp_path: Path) -> None:
    rows = [chat(f"Question {number}", f"Answer {number}") for number in range(11)]
    path = written(tmp_path / "a.jsonl", *rows, chat("word " * 2000, "The answer"))
    result = run("data", "check", path, "--no-openai")
    assert result.exit_code == 1
    assert "Longer than the 1,024 tokens" in result.output and "row 12: " in result.output


def test_check_with_a_validation_file_that_leaks(run: Run) -> None:
    result = run("data", "check", TRAIN, "--valid", TRAIN, "--no-openai")
    assert "leakage" in result.output and result.output.count("1,204 rows, chat") == 2


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\xff\xfe\x00", b"[]", b"PK\x03\x04", b"{" * 9999]
)
def test_check_of_what_is_no_data(run: Run, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    result = run("data", "check", path)
    assert result.exit_code == 1 and result.exception.__class__ is SystemExit
    assert "Blocked" in result.output


def test_wrong_options_end_in_a_line(run: Run, tmp_path: Path) -> None:
    assert "no such file" in problem(run("data", "check", tmp_path / "x"))
    assert "--method x" in problem(run("data", "check", REAL, "--method", "x"))
    assert "not both" in problem(run("data", "check", REAL, "--base", "a", "--tokenizer", "b"))
    missing = problem(run("data", "check", REAL, "--base", "gpt-9", "--data", tmp_path))
    assert "No base gpt-9" in missing
    assert "tokenizer.json" in problem(run("data", "check", REAL, "--tokenizer", tmp_path))


def test_check_of_a_pasted_text_says_what_fix_makes_of_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "marv.txt"
    path.write_text(PRETTY.read_text().replace('"messages"', "\u201cmessages\u201d"))
    result = run("data", "check", path)
    assert result.exit_code == 1 and "typographic_quotes" in result.output
    assert "It reads 3 rows from this file." in result.output


def test_check_of_preference_rows_leaves_the_notebook_out(run: Run, tmp_path: Path) -> None:
    row = {
        "input": {"messages": [{"role": "user", "content": "Hi"}]},
        "preferred_output": [{"role": "assistant", "content": "Yo"}],
        "non_preferred_output": [{"role": "assistant", "content": "No"}],
    }
    result = run("data", "check", written(tmp_path / "a.jsonl", *[row] * 12), "--method", "dpo")
    assert "12 rows, preference" in result.output and "notebook" not in result.output


# -- fix ----------------------------------------------------------------------------------------


def test_fix_makes_a_tutorial_s_text_a_training_file(run: Run, tmp_path: Path) -> None:
    text = PRETTY.read_text().replace('"messages"', "\u201cmessages\u201d")
    source, out = tmp_path / "marv.txt", tmp_path / "marv.jsonl"
    source.write_text("\ufeff" + text, encoding="utf-8")
    before = source.read_bytes()
    result = run("data", "fix", source, "-o", out)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.open(encoding="utf-8")]
    assert rows == [json.loads(line) for line in MARV.open(encoding="utf-8")]
    assert source.read_bytes() == before
    for said in ("typographic_quotes", "byte_order_mark", "Checked again", "too_few_rows"):
        assert said in result.output


def test_fixed_pairs_are_checked_again_as_pairs(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", *[PAIR] * 60, PAIR | {"source": "forum"})
    result = run("data", "fix", source, "-o", tmp_path / "b.jsonl")
    assert "unknown_key" in result.output and "wrong_format" not in result.output


def test_a_dry_run_shows_the_same_and_writes_nothing(
    run: Run, broken: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    dry = run("data", "fix", broken, "--dry-run")
    assert [path.name for path in tmp_path.iterdir()] == [broken.name]
    real = run("data", "fix", broken, "-o", out)
    assert real.output.startswith(dry.output.rstrip("\n"))
    for said in ('"colour": "red"', "Human", "exact_duplicate", "1 line could not be read"):
        assert said in dry.output
    assert len(out.read_text().splitlines()) == 15


def test_fix_refuses_what_would_lose_data(run: Run, broken: Path, tmp_path: Path) -> None:
    before = broken.read_bytes()
    assert "the file itself" in problem(run("data", "fix", broken, "-o", broken))
    assert "either -o OUT" in problem(run("data", "fix", broken))
    unknown = problem(run("data", "fix", broken, "--dry-run", "--only", "leakage"))
    assert "no such repair" in unknown and "crlf" in unknown
    assert broken.read_bytes() == before


def test_fix_only_what_is_named(run: Run, broken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run("data", "fix", broken, "-o", out, "--only", "wrong_role,exact_duplicate")
    text = out.read_text()
    assert "Human" not in text and "colour" in text and text.count("\n") == 16


# -- convert and split --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.json", "rows.parquet"])
def test_convert_there_and_back(run: Run, tmp_path: Path, name: str) -> None:
    out, back = tmp_path / name, tmp_path / "back.jsonl"
    assert "Wrote 280 rows" in run("data", "convert", REAL, "-o", out).output
    assert run("data", "convert", out, "-o", back).exit_code == 0
    assert [row.messages for row in read_rows(back)] == [row.messages for row in read_rows(REAL)]


def test_convert_says_what_is_left_out(run: Run, tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", chat("Hi", "Yo", source="x"), {"messages": [1]})
    refused = problem(run("data", "convert", source, "-o", tmp_path / "o.jsonl"))
    assert "line 2" in refused and "--skip" in refused
    result = run("data", "convert", source, "-o", tmp_path / "o.jsonl", "--skip")
    assert "left out: a.jsonl, line 2" in result.output and "'source' has no place" in result.output


def test_convert_options_that_are_wrong(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    assert "--from x" in problem(run("data", "convert", REAL, "-o", out, "--from", "x"))
    kinds = problem(run("data", "convert", REAL, "-o", out, "--to", "stored_completions"))
    assert "sharegpt" in kinds
    assert "end the name" in problem(run("data", "convert", REAL, "-o", tmp_path / "o.doc"))
    assert "--column a" in problem(run("data", "convert", REAL, "-o", out, "--column", "a"))
    assert "the file itself" in problem(run("data", "convert", REAL, "-o", REAL))


def test_split(run: Run, tmp_path: Path) -> None:
    train, valid = tmp_path / "t.jsonl", tmp_path / "v.jsonl"
    result = run("data", "split", REAL, "-o", train, "-o", valid, "--ratio", "0.25")
    assert result.exit_code == 0 and "7 labels" in result.output
    lines = train.read_text().splitlines() + valid.read_text().splitlines()
    assert sorted(lines) == sorted(REAL.read_text().splitlines())
    assert "Give -o twice" in problem(run("data", "split", REAL, "-o", train))
    outside = run("data", "split", REAL, "-o", train, "-o", valid, "--ratio", "2")
    assert "between 0 and 1" in problem(outside)


# -- show, sample, stats ------------------------------------------------------------------------


def test_show_tells_trained_tokens_from_the_others(run: Run) -> None:
    result = run("data", "show", REAL, "--row", "2", "--ids")
    assert "example 2, as tunesmith-nano sees it" in result.output
    assert "<|assistant|>" in result.output and "trained (" in result.output
    assert "[7]" in result.output  # the id of <|end|>


def test_show_marks_the_cut(run: Run) -> None:
    result = run("data", "show", REAL, "--max-tokens", "10")
    assert "cut here: 10 tokens is the limit" in result.output
    assert "the whole answer" in result.output and "A job refuses this row" in result.output


def test_show_of_a_row_that_is_not_there(run: Run, tmp_path: Path) -> None:
    for row in ("0", "281", "-1"):
        assert f"no example {row}" in problem(run("data", "show", REAL, "--row", row))


def test_show_of_a_good_row_among_broken_ones(run: Run, broken: Path) -> None:
    path = written(broken.with_name("b.jsonl"), "{'x'", *broken.read_text().splitlines())
    assert "example 2, as" in run("data", "show", path, "--row", "2").output
    assert "line 1" in problem(run("data", "show", path, "--row", "1"))


def test_show_of_unicode_and_huge_rows(run: Run, tmp_path: Path) -> None:
    text = "\u4f60\u597d \U0001f600\u2028 [bold]:fire: <|end|>\ttab\n" * 50
    path = written(tmp_path / "a.jsonl", chat(text, "x" * 100_000))
    result = run("data", "show", path)
    assert result.exit_code == 0
    for said in ("\u4f60\u597d", "\U0001f600", "[bold]:fire:", data_show.VISIBLE["\t"].strip()):
        assert said in result.output
    assert "beyond the limit" in result.output


def test_sample_is_a_few_rows_and_repeatable(run: Run) -> None:
    first = run("data", "sample", REAL, "-n", "2", "--seed", "4").output
    assert first == run("data", "sample", REAL, "-n", "2", "--seed", "4").output
    assert first.count("example ") == 2 and first.count(" assistant  ") == 2


def test_stats(run: Run) -> None:
    result = run("data", "stats", REAL)
    for said in (
        "280 rows",
        "tokens a row",
        "labels: 7, balance 1.00",
        "GetWeather",
        data_stats.BAR,
    ):
        assert said in result.output
    found = json.loads(run("data", "stats", REAL, "--json").output)
    assert found["num_rows"] == 280 and found["labels"]["GetWeather"] == 40
    assert found["tokens"]["max"] >= found["tokens"]["p90"]


# -- estimate -----------------------------------------------------------------------------------


def test_estimate_without_measuring(run: Run) -> None:
    result = run("data", "estimate", TRAIN, "--no-measure", "--epochs", "4")
    for said in ("trained tokens", "191,868", "2,408", "unknown", "gpt-4o-mini", "$0.56"):
        assert said in result.output, result.output


def test_estimate_measures_time_memory_and_price_here(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("tunesmith.jobs.rate.BUDGET_S", 0.1)
    monkeypatch.setenv("TUNESMITH_PRICES", '{"*": {"training": 0.001, "machine_hour": 36}}')
    found = json.loads(run("data", "estimate", REAL, "--json", "--data", tmp_path).output)
    assert found["seconds"] == pytest.approx(found["trained_tokens"] / found["tokens_per_s"])
    assert found["peak_bytes"] > 1e6 and "measured just now" in found["rate_source"]
    here = list(found["local_usd"].values())
    assert float(here[0]) == pytest.approx(found["trained_tokens"] / 1e6, abs=0.006)
    assert float(here[1]) == pytest.approx(found["seconds"] / 100, abs=0.006)


def test_estimate_of_the_break_even(run: Run) -> None:
    options = ("--no-measure", "--model", "gpt-4o-mini", "--break-even", "2000,200,100,1000")
    result = run("data", "estimate", TRAIN, *options)
    assert "$0.3600 per 1,000 requests" in result.output
    assert "paid back after 2,334 requests, 2.3 days" in result.output
    never = run("data", "estimate", TRAIN, *options[:-1], "200,190,100")
    assert "never pays off" in never.output


def test_estimate_options_that_are_wrong(run: Run, tmp_path: Path) -> None:
    assert "no published price" in problem(
        run("data", "estimate", REAL, "--no-measure", "--model", "x")
    )
    assert "BEFORE,AFTER" in problem(run("data", "estimate", REAL, "--break-even", "1,2"))
    assert "--epochs many" in problem(run("data", "estimate", REAL, "--epochs", "many"))
    empty = written(tmp_path / "a.jsonl")
    assert "no rows" in problem(run("data", "estimate", empty, "--no-measure"))


def test_a_finished_job_tells_the_speed(run: Run, tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "ftjob-1"
    job.mkdir(parents=True)
    nano = ROOT / "tunesmith/assets/nano"
    training = FileRef("file-1", REAL)
    write_record(Spec("ftjob-1", 1, BaseRef("nano", nano), training, 0), job / SPEC_FILE)
    before = json.loads(run("data", "estimate", REAL, "--json", "--no-measure").output)
    per_step = before["trained_tokens"] / before["num_steps"]
    num = round(5000 / per_step)
    write_record(Result(1, "succeeded", num, num, 5000), job / RESULT_FILE)
    steps = [{"step": n, "total_steps": 2, "train_loss": 0.5} for n in (1, 2)]
    lines = [
        EventLine(f"step:{n}", "", 1000 + 50 * n, "metrics", data=data)
        for n, data in enumerate(steps)
    ]
    log = "".join(json.dumps(asdict(line)) + "\n{\n" for line in lines)
    (job / EVENTS_FILE).write_text(log)
    damaged = tmp_path / "jobs" / "ftjob-2"
    damaged.mkdir()
    (damaged / SPEC_FILE).write_text("{")
    found = json.loads(run("data", "estimate", REAL, "--json", "--data", tmp_path).output)
    assert found["tokens_per_s"] == 100 and found["rate_source"] == "measured by job ftjob-1"
    for method, kind, factor, rate in (
        *(("supervised", "lora", 1, 100), ("dpo", "lora", 1, None)),
        *(("supervised", "full", 1, None), ("supervised", "lora", 1.9, 100)),
        # Steps of other sizes take another time for each token.
        *(("supervised", "lora", 3, None), ("supervised", "lora", 0.3, None)),
    ):
        past = past_rate(tmp_path / "jobs", nano, method, kind, factor * per_step)
        assert (past and past.tokens_per_s) == rate


@pytest.mark.parametrize("command", ["show", "sample", "stats", "estimate", "split"])
def test_a_broken_row_ends_in_one_line_that_names_it(
    run: Run, tmp_path: Path, command: str
) -> None:
    path = written(tmp_path / "a.jsonl", "{'x'")
    result = run("data", command, path)
    assert isinstance(result.exception, DataError | TunesmithError)
    assert "line 1" in problem(result)


def test_registered_bases_and_directories(run: Run, tmp_path: Path) -> None:
    nano = ROOT / "tunesmith/assets/nano"
    by_path = run("data", "show", REAL, "--base", nano).output
    assert "as nano sees it" in by_path
    assert "as nano sees it" in run("data", "show", REAL, "--tokenizer", nano).output


# -- rows of the other methods ------------------------------------------------------------------

PAIR = {
    "input": {"messages": [{"role": "user", "content": "What is the weather in Oslo?"}]},
    "preferred_output": [{"role": "assistant", "content": "It will rain all day."}],
    "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
}
PROMPT = {
    "messages": [{"role": "user", "content": "What is 2 and 3?"}],
    "reference": {"answer": "5", "steps": ["2 + 3"]},
}
ITEM = {"item": {"question": "What is 2 and 3?", "ideal": "5"}}
PLAIN = {"prompt": "2 + 3 =", "completion": " 5"}


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        (PAIR, ("user  What is the weather", "preferred  It will rain", "rejected  No idea.")),
        (PROMPT, ("user  What is 2", "reference.answer  5", "reference.steps[0]  2 + 3")),
        (ITEM, ("item.question  What is 2", "item.ideal  5")),
        (PLAIN, ("prompt  2 + 3 =", "completion   5")),
    ],
)
def test_sample_of_every_kind_of_rows(
    run: Run, tmp_path: Path, row: dict[str, Any], texts: tuple[str, ...]
) -> None:
    result = run("data", "sample", written(tmp_path / "a.jsonl", row), "-n", "1")
    for text in texts:
        assert text in result.output, result.output


def test_show_of_a_pair_and_of_a_prompt(run: Run, tmp_path: Path) -> None:
    pair = run("data", "show", written(tmp_path / "a.jsonl", PAIR)).output
    assert pair.count("What is the weather in Oslo?") == 2
    assert "with the preferred answer" in pair and "with the rejected answer" in pair
    prompt = run("data", "show", written(tmp_path / "b.jsonl", PROMPT)).output
    assert "up to where the model begins" in prompt and "<|end|><|assistant|>\n" in prompt
    assert "0 trained (0%)" in prompt and "reference.answer: 5" in prompt
    item = run("data", "show", written(tmp_path / "c.jsonl", ITEM)).output
    assert "item.question" in item
    plain = run("data", "show", written(tmp_path / "d.jsonl", PLAIN)).output
    assert "2 + 3 = 5" in plain


def test_stats_of_pairs_count_the_prompt_once(run: Run, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", *[PAIR] * 3)
    found = json.loads(run("data", "stats", path, "--json").output)
    assert found["kinds"] == {"preference": 3}
    assert (found["answer_characters"]["max"], found["rejected_characters"]["max"]) == (21, 8)
    shown = run("data", "show", path).output
    totals = [int(line.split(" tokens, ")[0]) for line in shown.splitlines() if " tokens, " in line]
    trained = [
        int(line.split(" tokens, ")[1].split()[0])
        for line in shown.splitlines()
        if " tokens, " in line
    ]
    prompt = totals[0] - trained[0]
    assert prompt == totals[1] - trained[1]
    assert found["num_tokens"] == 3 * (prompt + sum(trained))
    assert found["num_trained_tokens"] == 3 * sum(trained)
    checked = json.loads(run("data", "check", path, "--method", "dpo", "--json").stdout)
    assert checked["tokens"]["total"] == found["num_tokens"]
    assert checked["tokens"]["trained"] == found["num_trained_tokens"]
    assert checked["openai_tokens"]["cl100k_base"] > 0 and checked["notebook"] is None


def test_a_pair_that_is_too_long_is_named(run: Run, tmp_path: Path) -> None:
    long = {**PAIR, "non_preferred_output": [{"role": "assistant", "content": "No. " * 900}]}
    path = written(tmp_path / "a.jsonl", *[PAIR] * 11, long)
    result = run("data", "check", path, "--method", "dpo")
    assert result.exit_code == 1 and "too_long  row 12" in result.output
    assert "row 12: " in result.output and "of them trained" in result.output


def test_rows_without_references_are_prompts_where_the_method_says_so(
    run: Run, tmp_path: Path
) -> None:
    path = written(tmp_path / "a.jsonl", {"messages": PROMPT["messages"]})
    assert "must be from the assistant" in problem(run("data", "show", path))
    shown = run("data", "show", path, "--method", "reinforcement")
    assert "up to where the model begins" in shown.output
    checked = run("data", "check", path, "--method", "reinforcement", "--json")
    codes = {each["code"] for each in json.loads(checked.stdout)["findings"]}
    assert codes == {"too_few_rows"}
    assert "--method x" in problem(run("data", "stats", path, "--method", "x"))


def test_estimate_of_pairs_prompts_and_items(run: Run, tmp_path: Path) -> None:
    pairs = written(tmp_path / "a.jsonl", *[PAIR] * 12)
    assert "not for preference rows" in run("data", "estimate", pairs).output
    found = json.loads(run("data", "estimate", pairs, "--json", "--epochs", "2").output)
    # As a job on them decides: resolve(..., "dpo").
    assert (found["hyperparameters"]["batch_size"], found["num_steps"]) == (8, 3)
    assert found["kind"] == "preference" and found["trained_tokens"] == 2 * found["num_tokens"]
    assert found["openai"][0]["num_tokens"] > 0 and found["seconds"] is None
    prompts = run("data", "estimate", written(tmp_path / "b.jsonl", *[PROMPT] * 12)).output
    assert "prompt tokens" in prompts and "by the hour" in prompts and "gpt-4o" not in prompts
    items = problem(run("data", "estimate", written(tmp_path / "c.jsonl", ITEM)))
    assert "nothing is trained on them" in items


# -- the tutorials' money -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "num_tokens", "n_epochs", "dollars"),
    [
        ("davinci-002", 150_000, 4, "$3.60"),
        ("gpt-3.5-turbo", 200_000, 5, "$8.00"),
        ("gpt-4o-mini", 100_000, 3, "$0.90"),
    ],
)
def test_the_tutorials_prices_of_files_of_that_size(
    run: Run, tmp_path: Path, model: str, num_tokens: int, n_epochs: int, dollars: str
) -> None:
    """Rows of 500 tokens each: 3 for the example, 3 a message, 1 a role, the rest "word"."""
    messages = [
        {"role": "user", "content": "word" + " word" * 245},
        {"role": "assistant", "content": "word" + " word" * 242},
    ]
    path = written(tmp_path / "a.jsonl", *[{"messages": messages}] * (num_tokens // 500))
    options = ("--no-measure", "--model", model, "--epochs", str(n_epochs))
    result = run("data", "estimate", path, *options)
    line = next(each for each in result.output.splitlines() if each.startswith(model))
    assert f"{num_tokens:,}" in line and dollars in line
