"""jobs, tune and chat, against an endpoint that is not ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Run, problem
from tests.unit.cli.endpoint import JOB_ID, TUNED, Endpoint, event, job, listing, sse
from tunesmith.cli import follow
from tunesmith.cli.chat import Conversation, answer
from tunesmith.cli.options import connect
from tunesmith.cli.screen import screen

JOB = f"/fine_tuning/jobs/{JOB_ID}"
STEPS = [
    event(n, f"Step {n}/3: ...", {"step": n, "total_steps": 3, "train_loss": 1 / n,
                                  "train_mean_token_accuracy": 0.5})
    for n in (1, 2, 3)
]  # fmt: skip
FIRST, LAST = event(0, "Created fine-tuning job"), event(9, "The job has successfully completed")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0.0)


def options(remote: Endpoint) -> tuple[str, ...]:
    return "--base-url", remote.base_url, "--api-key", "sk-test"


def test_list(remote: Endpoint, run: Run) -> None:
    remote.answer("GET", "/fine_tuning/jobs", listing(job("succeeded", fine_tuned_model=TUNED)))
    result = run("jobs", "list", *options(remote))
    assert result.exit_code == 0, result.output
    assert JOB_ID in result.output and TUNED in result.output and "succeeded" in result.output


def test_list_of_none_says_what_to_do(remote: Endpoint, run: Run) -> None:
    remote.answer("GET", "/fine_tuning/jobs", listing())
    assert "tunesmith tune" in run("jobs", "list", *options(remote)).output


def test_show_has_the_hyperparameters_of_other_methods(remote: Endpoint, run: Run) -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 3}}}
    remote.answer("GET", JOB, job("running", hyperparameters=None, method=method))
    remote.answer("GET", f"{JOB}/events", listing(FIRST))
    remote.answer("GET", f"{JOB}/checkpoints", listing())
    output = run("jobs", "show", JOB_ID, *options(remote)).output
    assert "beta 0.2, n_epochs 3" in output


def test_show_has_details_events_and_checkpoints(remote: Endpoint, run: Run) -> None:
    failure = {"code": "invalid_training_file", "message": "Example 3 ...", "param": None}
    point = {"id": "c", "object": "fine_tuning.job.checkpoint", "created_at": 1, "metrics": {},
             "step_number": 100, "fine_tuned_model_checkpoint": "ft:x:ckpt-step-100",
             "fine_tuning_job_id": JOB_ID}  # fmt: skip
    remote.answer("GET", JOB, job("failed", error=failure))
    remote.answer("GET", f"{JOB}/events", listing(STEPS[0], FIRST))
    remote.answer("GET", f"{JOB}/checkpoints", listing(point))
    output = run("jobs", "show", JOB_ID, *options(remote)).output
    assert "invalid_training_file: Example 3" in output and "n_epochs 3" in output
    assert output.index("Created fine-tuning job") < output.index("Step 1/3")
    assert "step 100  ft:x:ckpt-step-100" in output


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_steering(verb: str, remote: Endpoint, run: Run) -> None:
    remote.answer("POST", f"{JOB}/{verb}", job("paused"))
    assert run("jobs", verb, JOB_ID, *options(remote)).output == f"{JOB_ID}: paused\n"


def test_tune_on_preferences_with_further_hyperparameters(
    remote: Endpoint, run: Run, tmp_path: Path
) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text("{}\n")
    file = {"id": "file-abc", "object": "file", "bytes": 3, "created_at": 1, "filename": "x",
            "purpose": "fine-tune", "status": "processed"}  # fmt: skip
    remote.answer("POST", "/files", file)
    remote.answer("POST", "/fine_tuning/jobs", job("validating_files"))
    given = ("--option", "finetuning_type=dora", "--option", 'lora_targets=["q_proj"]')
    result = run("tune", data, "--model", "m", "--method", "dpo", "--beta", "0.2", "--no-watch",
                 *given, *options(remote))  # fmt: skip
    assert result.exit_code == 0, result.output
    created = next(body for method, path, body in remote.received if path.endswith("/jobs"))
    assert json.loads(created)["method"] == {
        "type": "dpo",
        "dpo": {
            "hyperparameters": {
                "n_epochs": "auto",
                "batch_size": "auto",
                "learning_rate_multiplier": "auto",
                "beta": 0.2,
                "finetuning_type": "dora",
                "lora_targets": ["q_proj"],
            }
        },
    }


@pytest.mark.parametrize(
    ("given", "says"),
    [(("--beta", "0.1"), "belongs to --method dpo"), (("--option", "rank"), "write NAME=VALUE")],
)
def test_tune_with_options_that_do_not_fit(
    given: tuple[str, ...], says: str, remote: Endpoint, run: Run, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text("{}\n")
    result = run("tune", data, "--model", "m", *given, *options(remote))
    assert says in problem(result)
    assert remote.received == []


def test_tune_uploads_creates_follows_and_names_the_model(
    remote: Endpoint, run: Run, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_text('{"messages": []}\n')
    file = {"id": "file-abc", "object": "file", "bytes": 17, "created_at": 1, "filename": "x",
            "purpose": "fine-tune", "status": "processed"}  # fmt: skip
    remote.answer("POST", "/files", file)
    remote.answer("POST", "/fine_tuning/jobs", job("validating_files"))
    done = job("succeeded", fine_tuned_model=TUNED)
    remote.answer("GET", JOB, job("running"), job("running"), done)
    remote.answer(
        "GET",
        f"{JOB}/events",
        listing(FIRST),
        listing(STEPS[1], STEPS[0], FIRST),
        listing(LAST, STEPS[2], STEPS[1], STEPS[0], FIRST),
    )
    result = run("tune", data, "--model", "gpt-4o-mini", "--epochs", "2", "--suffix", "s",
                 *options(remote))  # fmt: skip
    assert result.exit_code == 0, result.output
    created = next(body for method, path, body in remote.received if path.endswith("/jobs"))
    request = json.loads(created)
    assert request["training_file"] == "file-abc" and request["suffix"] == "s"
    assert request["method"]["supervised"]["hyperparameters"] == {
        "n_epochs": 2,
        "batch_size": "auto",
        "learning_rate_multiplier": "auto",
    }
    assert result.output.count("Created fine-tuning job") == 1
    assert "step 3/3  loss 0.333  token accuracy 50.0%" in result.output
    assert f"Tuned model: {TUNED}" in result.output and f'model="{TUNED}"' in result.output


def test_a_failed_job_ends_the_command_with_its_reason(remote: Endpoint, run: Run) -> None:
    reason = {"code": "invalid_n_examples", "message": "Training file has 3 example(s)"}
    remote.answer("GET", JOB, job("failed", error={**reason, "param": "training_file"}))
    remote.answer("GET", f"{JOB}/events", listing(FIRST))
    result = run("jobs", "show", JOB_ID, "--watch", *options(remote))
    assert problem(result) == "The job failed (invalid_n_examples): Training file has 3 example(s)"


def test_what_the_endpoint_refuses_is_said_in_its_words(remote: Endpoint, run: Run) -> None:
    remote.fail("GET", "/fine_tuning/jobs", 401, "Incorrect API key provided: sk-...test.")
    line = problem(run("jobs", "list", *options(remote)))
    assert line.startswith("Incorrect API key provided: sk-...test.") and "--api-key" in line


def test_an_address_without_v1_is_recognised(remote: Endpoint, run: Run) -> None:
    remote.answers["GET", "/fine_tuning/jobs"] = [(404, {"detail": "Not Found"})]
    root = remote.base_url.removesuffix("/v1")
    line = problem(run("jobs", "list", "--base-url", root, "--api-key", "k"))
    assert "/v1" in line


def test_chat_streams_remembers_and_obeys(remote: Endpoint, run: Run) -> None:
    model = {"id": "m", "object": "model", "created": 1, "owned_by": "o"}
    remote.answer("GET", "/models/m", model)
    remote.answer("POST", "/chat/completions", sse("Par", "is [1]."), sse("Bonn."))
    lines = "/help\nCapital of France?\nAnd before?\n/system Be brief.\nAnd now?\n/exit\nnever\n"
    result = run("chat", "m", *options(remote), input=lines)
    assert result.exit_code == 0, result.output
    assert "Paris [1]." in result.output and "/reset" in result.output
    sent = [json.loads(body)["messages"] for _, path, body in remote.received if "chat" in path]
    assert [len(messages) for messages in sent] == [1, 3, 2]
    assert sent[1][1] == {"role": "assistant", "content": "Paris [1]."}
    assert sent[2][0] == {"role": "system", "content": "Be brief."}


def test_a_conversation_survives_an_error_and_a_script_does_not(
    remote: Endpoint, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.answer("GET", "/models/m", {"id": "m", "object": "model", "created": 1})
    remote.fail("POST", "/chat/completions", 400, "This model's maximum context length is 8.")
    assert "context length" in problem(run("chat", "m", *options(remote), input="hello\n"))
    talk = Conversation(connect(remote.base_url, "k"), "m", {})
    answer(talk, "hello", screen(), interactive=True)
    assert "context length" in capsys.readouterr().out and talk.messages == []


def test_what_a_model_says_cannot_steer_the_terminal(
    remote: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.answer("POST", "/chat/completions", sse("a\x1b[2Jb\tc\n"))
    answer(Conversation(connect(remote.base_url, "k"), "m", {}), "x", screen(), interactive=False)
    assert capsys.readouterr().out == "a\\x1b[2Jb\tc\n\n"


def test_chat_with_an_unknown_model_ends_at_once(remote: Endpoint, run: Run) -> None:
    remote.fail("GET", "/models/m", 404, "The model `m` does not exist.", "model_not_found")
    assert problem(run("chat", "m", *options(remote))) == "The model `m` does not exist."


def test_chat_works_where_models_cannot_be_looked_up(remote: Endpoint, run: Run) -> None:
    remote.answer("POST", "/chat/completions", sse("Hi."))
    assert run("chat", "m", *options(remote), input="hello\n").output == "Hi.\n"


def test_an_answer_that_was_stopped_stays_in_the_conversation(remote: Endpoint) -> None:
    remote.answer("POST", "/chat/completions", sse("Well, ", "it is long."))
    talk = Conversation(connect(remote.base_url, "k"), "m", {})
    reply = talk.reply("Tell me all.")
    assert next(reply) == "Well, "
    reply.close()  # what Ctrl-C does
    assert [turn["content"] for turn in talk.messages] == ["Tell me all.", "Well, "]
