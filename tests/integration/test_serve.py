"""`tunesmith serve` as its users meet it: processes, sockets, signals."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.contract.spec import check
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.bases import EMBEDDED_NAME
from tunesmith.config import Settings
from tunesmith.serve.client import EngineClient
from tunesmith.store.db import open_database
from tunesmith.store.repo import files

START_S = 90.0
MODULES = ("tunesmith.api", "tunesmith.jobs", "tunesmith.serve")
LONG: dict[str, Any] = {
    "model": EMBEDDED_NAME,
    "messages": [{"role": "user", "content": "Tell me a long story."}],
    # Never ends by itself, so that there is something to break off.
    "logit_bias": {"100": 100},
    "temperature": 0,
}


@dataclass
class Running:
    data: Path
    process: subprocess.Popen[str]
    lines: list[str]
    """What it has printed so far."""

    def wait_for(self, text: str) -> str:
        found: list[str] = []

        def seen() -> bool:
            found.extend(line for line in self.lines if text in line)
            return bool(found)

        eventually(seen, START_S)
        return found[0]

    @property
    def port(self) -> int:
        return int(self.wait_for("base URL").rsplit(":", 1)[1].split("/")[0])

    def client(self, key: str, **given: Any) -> OpenAI:
        return OpenAI(api_key=key, base_url=f"http://127.0.0.1:{self.port}/v1", **given)

    def child(self, module: str) -> int:
        """The id of the process that runs `module`."""
        own = self.process.pid
        for number in Path(f"/proc/{own}/task/{own}/children").read_text().split():
            if module in command_of(int(number)):
                return int(number)
        raise LookupError(module)

    def end(self, number: int = signal.SIGINT) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


def command_of(process_id: int) -> list[str]:
    """Its command line; empty once it has ended."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text().split("\0")
    except FileNotFoundError:
        return []


def eventually(true: Callable[[], bool], timeout_s: float = 30.0) -> None:
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up, "it did not come true in time"
        time.sleep(0.02)


def start(data: Path, **environment: str) -> Running:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tunesmith.cli.app", "serve", "--data", str(data), "--port", "0"],
        env={**kept, **environment},
        cwd=data.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    running = Running(data, process, [])

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            running.lines.append(line.rstrip())

    threading.Thread(target=listen, daemon=True).start()
    return running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = start(tmp_path_factory.mktemp("serve") / "data")
    running.wait_for("ready")
    yield running
    assert running.end() == 0


@pytest.fixture(scope="module")
def key(server: Running) -> str:
    return server.wait_for("API key").split()[2]


def num_running(server: Running) -> int:
    engine = EngineClient(Settings(data=server.data).engine_socket)
    return int(asyncio.run(engine.stats())["num_running"])


def connection(server: Running) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)


def test_it_says_where_it_is_and_shows_the_key_once(server: Running, key: str) -> None:
    assert key.startswith("sk-")
    assert "shown this once" in server.wait_for("API key")
    assert str(server.data) in server.wait_for("data  ")
    assert server.client(key).models.retrieve(EMBEDDED_NAME).id == EMBEDDED_NAME
    logs = [path.read_bytes() for path in (server.data / "log").iterdir()]
    assert not any(key.encode() in log for log in logs)
    assert (server.data.stat().st_mode & 0o777) == 0o700
    assert ((server.data / "pepper").stat().st_mode & 0o777) == 0o600


def test_a_second_server_on_the_same_directory_is_refused(server: Running) -> None:
    second = start(server.data)
    assert second.process.wait(START_S) == 1
    message = second.wait_for("Another tunesmith serve")
    assert str(server.process.pid) in message
    assert "--data" in message


def test_a_port_in_use_is_named(server: Running, tmp_path: Path) -> None:
    second = start(tmp_path / "data", TUNESMITH_PORT=str(server.port))
    # --port 0 on the command line wins over the variable, so this one starts ...
    second.wait_for("base URL")
    assert second.end() == 0
    command = [sys.executable, "-m", "tunesmith.cli.app", "serve", "--port", str(server.port)]
    refused = subprocess.run(
        [*command, "--data", str(tmp_path / "other")], capture_output=True, text=True, timeout=60
    )
    # ... and this one does not.
    assert refused.returncode == 1
    assert f"port {server.port}" in refused.stderr
    assert "--port" in refused.stderr


def test_answers_over_the_socket_are_as_published(server: Running, key: str) -> None:
    wire = connection(server)
    for path in ("/v1/models", "/v1/files", "/v1/fine_tuning/jobs", "/v1/nothing", "/readyz"):
        wire.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = wire.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        check("GET", path, answer.status, headers, answer.read())


def test_streamed_and_whole_answers_agree(server: Running, key: str) -> None:
    client = server.client(key)
    asked: dict[str, Any] = {
        "model": EMBEDDED_NAME,
        "messages": [{"role": "user", "content": "Hello!"}],
        "temperature": 0,
        "max_tokens": 16,
    }
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_ends_its_answer(server: Running, key: str, stream: bool) -> None:
    if stream:
        answer = server.client(key).chat.completions.create(**LONG, stream=True)
        next(iter(answer))
        answer.close()
    else:
        with pytest.raises(openai.APITimeoutError):
            server.client(key, timeout=0.3, max_retries=0).chat.completions.create(**LONG)
    eventually(lambda: num_running(server) == 0, 5)
    assert "request failed" not in (server.data / "log" / "api.log").read_text()


def test_an_upload_that_breaks_off_leaves_nothing(server: Running, key: str) -> None:
    wire = connection(server)
    wire.putrequest("POST", "/v1/files")
    wire.putheader("Authorization", f"Bearer {key}")
    wire.putheader("Content-Type", "multipart/form-data; boundary=b")
    wire.putheader("Content-Length", "100000000")
    wire.endheaders()
    wire.send(b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')
    wire.send(b"x" * (3 << 20))
    blobs = Settings(data=server.data).blobs_dir
    eventually(lambda: any(path.stat().st_size for path in blobs.rglob("*.part")))
    wire.close()
    eventually(lambda: not any(blobs.rglob("*.part")))
    db = open_database(server.data)
    with db.read() as conn:
        assert files.page(conn, DEFAULT_PROJECT).rows == []
    db.close()


def test_a_large_upload_with_a_wrong_key_reads_its_refusal(server: Running) -> None:
    with pytest.raises(openai.AuthenticationError):
        server.client("sk-wrong", max_retries=0).files.create(
            file=b"x" * (20 << 20), purpose="fine-tune"
        )


@pytest.mark.parametrize("module", MODULES)
def test_a_process_that_is_killed_comes_back(server: Running, key: str, module: str) -> None:
    killed = server.child(module)
    os.kill(killed, signal.SIGKILL)
    if module == "tunesmith.api":
        # The socket is the launcher's: this request waits for the next process.
        assert server.client(key, max_retries=3).models.list().data
    eventually(lambda: any("was killed by SIGKILL" in line for line in server.lines))
    server.lines[:] = [line for line in server.lines if "SIGKILL" not in line]

    def back() -> bool:
        try:
            return server.child(module) != killed
        except LookupError:
            return False

    eventually(back)
    asked: dict[str, Any] = LONG | {"max_tokens": 2}
    eventually(lambda: answers(server, key, asked), START_S)


def answers(server: Running, key: str, asked: dict[str, Any]) -> bool:
    try:
        return bool(server.client(key, max_retries=0).chat.completions.create(**asked).choices)
    except openai.APIStatusError as error:
        assert error.status_code == 503
        return False


def late_ones_are_told(server: Running, key: str) -> None:
    """What has not ended when a server's time is up ends with an error that can be retried."""
    client = server.client(key, max_retries=0)
    endless = {**LONG, "n": 16}
    chunks = client.chat.completions.create(**endless, stream=True)
    next(iter(chunks))
    with ThreadPoolExecutor() as pool:
        whole = pool.submit(lambda: client.chat.completions.create(**endless))
        eventually(lambda: num_running(server) > 16)
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shut down before"):
            list(chunks)
        with pytest.raises(openai.InternalServerError) as told:
            whole.result()
    assert told.value.status_code == 503
    assert told.value.response.headers["retry-after"]
    assert server.process.wait(60) == 0
    assert not any("Exception" in line for line in server.lines)


def test_ctrl_c_lets_an_answer_finish_and_a_restart_keeps_the_key(tmp_path: Path) -> None:
    mine = "sk-mine-" + "0" * 40
    first = start(tmp_path / "data", TUNESMITH_API_KEY=mine)
    first.wait_for("ready")
    assert mine not in first.wait_for("API key")
    client = first.client(mine)
    chunks = client.chat.completions.create(**LONG, max_tokens=400, stream=True)
    next(iter(chunks))
    first.process.send_signal(signal.SIGINT)
    *_, last = chunks
    assert last.choices[0].finish_reason == "length"
    assert first.process.wait(60) == 0

    second = start(tmp_path / "data", TUNESMITH_DRAIN_S="0.5")
    second.wait_for("ready")
    assert "as made before" in second.wait_for("API key")
    assert second.client(mine).models.list().data
    late_ones_are_told(second, mine)

    third = start(tmp_path / "data")
    third.wait_for("ready")
    children = [third.child(module) for module in MODULES]
    # Even killed, the launcher leaves nobody behind.
    third.process.kill()
    third.process.wait()
    eventually(lambda: not any(map(command_of, children)))
