"""An endpoint that is not ours: canned answers in the public shapes, over real HTTP."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOB_ID = "ftjob-abc"
TUNED = "ft:gpt-4o-mini:acme::12345678"
ERROR = {"message": "", "type": "invalid_request_error", "param": None, "code": None}


def job(status: str, **fields: Any) -> dict[str, Any]:
    blank = ("fine_tuned_model", "finished_at", "error", "trained_tokens", "validation_file")
    return {
        "id": JOB_ID,
        "object": "fine_tuning.job",
        "created_at": 1_700_000_000,
        "status": status,
        "model": "gpt-4o-mini",
        "organization_id": "acme",
        "result_files": [],
        "training_file": "file-abc",
        "hyperparameters": {"n_epochs": 3},
        "seed": 1,
        **dict.fromkeys(blank),
        **fields,
    }


def event(number: int, message: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "id": f"ftevent-{number}",
        "object": "fine_tuning.job.event",
        "created_at": 1_700_000_000 + number,
        "level": "info",
        "message": message,
        "type": "metrics" if data else "message",
        "data": data or {},
    }


def listing(*entries: dict[str, Any], has_more: bool = False) -> dict[str, Any]:
    return {"object": "list", "data": list(entries), "has_more": has_more}


@dataclass
class Endpoint:
    """(method, path without query) -> answers, the last of which is repeated."""

    base_url: str = ""
    answers: dict[tuple[str, str], list[tuple[int, Any]]] = field(default_factory=dict)
    received: list[tuple[str, str, bytes]] = field(default_factory=list)

    def answer(self, method: str, path: str, *bodies: Any, status: int = 200) -> None:
        self.answers[method, f"/v1{path}"] = [(status, body) for body in bodies]

    def fail(
        self, method: str, path: str, status: int, message: str, code: str | None = None
    ) -> None:
        error = {**ERROR, "message": message, "code": code}
        self.answer(method, path, {"error": error}, status=status)


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    state = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            state.received.append((self.command, path, body))
            missing = [(404, {"error": {**ERROR, "message": f"no {self.command} {path}"}})]
            answers = state.answers.get((self.command, path), missing)
            status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
            stream = isinstance(answer, str)
            content = answer.encode() if stream else json.dumps(answer).encode()
            self.send_response(status)
            kind = "text/event-stream" if stream else "application/json"
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = respond

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def sse(*pieces: str) -> str:
    """A streamed chat answer."""
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    events = [
        {**chunk, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        for piece in pieces
    ]
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
