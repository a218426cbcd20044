"""The command line and the current client, against a real server."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from openai import OpenAI

from tests.clients import walk
from tests.clients.rows import jsonl
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.cli.background import Server


def tunesmith(server: Server, *arguments: str, input: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunesmith.cli.app", *arguments],
        input=input,
        capture_output=True,
        text=True,
        env=environment(server),
        timeout=120,
    )


def environment(server: Server) -> dict[str, str]:
    return {
        **os.environ,
        "TUNESMITH_BASE_URL": server.base_url,
        "TUNESMITH_API_KEY": server.api_key,
        "COLUMNS": "200",
    }


def test_from_a_file_to_a_chat(server: Server, tmp_path: Path) -> None:
    data = tmp_path / "marv.jsonl"
    data.write_bytes(jsonl(12))
    tuned = tunesmith(server, "tune", str(data), "--model", EMBEDDED_NAME, "--valid", str(data),
                      "--epochs", "2", "--suffix", "fire")  # fmt: skip
    assert tuned.returncode == 0, tuned.stderr
    found = re.search(r"^Tuned model: (ft:\S+)$", tuned.stdout, re.MULTILINE)
    assert found and ":fire:" in found[1]
    assert "token accuracy" in tuned.stdout and "The job has successfully completed" in tuned.stdout
    listed = tunesmith(server, "jobs", "list")
    assert found[1] in listed.stdout and "succeeded" in listed.stdout
    job_id = listed.stdout.splitlines()[1].split()[0]
    shown = tunesmith(server, "jobs", "show", job_id).stdout
    assert "trained tokens" in shown and "ckpt-step-" in shown
    chat = tunesmith(server, "chat", found[1], "--temperature", "0", input="Hello!\n")
    assert chat.returncode == 0 and chat.stdout.strip()
    late = tunesmith(server, "jobs", "cancel", job_id)
    assert late.returncode == 1 and "succeeded" in late.stderr


def test_bad_data_ends_with_the_reason(server: Server, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_bytes(jsonl(12) + b'{"messages": [}\n')
    result = tunesmith(server, "tune", str(data), "--model", EMBEDDED_NAME)
    assert result.returncode == 1
    assert "Example 13" in result.stderr and len(result.stderr.splitlines()) == 1


def test_the_current_client_walks_every_call(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(jsonl(12))
    walk.main(server.base_url, server.api_key, EMBEDDED_NAME, str(path))


def test_an_alias_works_at_once(server: Server, client: OpenAI) -> None:
    name = "my-alias"
    options = ("--data", str(server.data))
    assert tunesmith(server, "base", "alias", name, EMBEDDED_NAME, *options).returncode == 0
    answer = client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Hello!"}], max_tokens=4
    )
    assert answer.model == name
    assert tunesmith(server, "base", "unalias", name, *options).returncode == 0
    assert name not in {model.id for model in client.models.list()}


def test_the_doctor_finds_nothing_wrong_with_a_used_directory(server: Server) -> None:
    result = tunesmith(server, "doctor", "--data", str(server.data))
    assert result.returncode == 0, result.stdout
    assert "Nothing is broken." in result.stdout


def test_one_more_worker_starts_and_drains(server: Server) -> None:
    command = [sys.executable, "-m", "tunesmith.cli.app", "worker", "--data", str(server.data)]
    worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert worker.stderr is not None
        assert str(server.data) in worker.stderr.readline()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.communicate()


class Terminal:
    """A command on a pseudo-terminal, typed at and read from."""

    def __init__(self, server: Server, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            command = [sys.executable, "-m", "tunesmith.cli.app", *arguments]
            os.execve(sys.executable, command, environment(server))
        self.seen = ""

    def expect(self, text: str, timeout_s: float = 60.0) -> None:
        give_up = time.monotonic() + timeout_s
        while text not in self.seen:
            assert time.monotonic() < give_up, f"no {text!r} in {self.seen[-500:]!r}"
            self.read(0.1)
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def end(self) -> int:
        """The exit code; reads what is still said."""
        give_up = time.monotonic() + 30
        while (done := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < give_up, self.seen[-500:]
            self.read(0.5)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(done[1])

    def read(self, timeout_s: float) -> None:
        if select.select([self.fd], [], [], timeout_s)[0]:
            with contextlib.suppress(OSError):  # the command's end closes the terminal
                self.seen += os.read(self.fd, 65536).decode(errors="replace")


def test_chat_in_a_terminal(server: Server) -> None:
    terminal = Terminal(server, "chat", EMBEDDED_NAME, "--temperature", "0")
    terminal.expect("/reset")
    terminal.expect("> ")
    terminal.type("Hello!\n")
    terminal.expect("> ")
    terminal.type("/reset\n")
    terminal.expect("started over")
    terminal.expect("> ")
    terminal.type("\x04")
    assert terminal.end() == 0


def test_ctrl_c_stops_watching_and_not_the_job(
    server: Server, client: OpenAI, tmp_path: Path
) -> None:
    data = tmp_path / "train.jsonl"
    data.write_bytes(jsonl(40))
    terminal = Terminal(
        server, "tune", str(data), "--model", EMBEDDED_NAME, "--epochs", "50", "--batch-size", "1"
    )
    terminal.expect("Fine-tuning job started")
    terminal.expect("loss")
    os.kill(terminal.pid, signal.SIGINT)
    terminal.expect("the job goes on")
    assert terminal.end() == 130
    job = client.fine_tuning.jobs.list(limit=1).data[0]
    assert job.status == "running"
    client.fine_tuning.jobs.cancel(job.id)
