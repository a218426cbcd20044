"""Many clients at once, with as little of a client as possible: what is measured is the server."""

from __future__ import annotations

import http.client
import itertools
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 120.0
RETRY_PAUSE_S = 0.05


@dataclass(frozen=True)
class Reply:
    at: float
    """When it had arrived, time.time()."""
    status: int
    """0: none came; whether the server answered cannot be told."""
    headers: dict[str, str]
    body: Any

    @property
    def tokens(self) -> tuple[int, int]:
        usage = self.body["usage"] if self.status == 200 else {}
        return usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0)


class Client:
    """One connection, opened again after the server has died."""

    def __init__(self, root: str, api_key: str) -> None:
        self._address = urlsplit(root).netloc
        self._headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
        self._connection: http.client.HTTPConnection | None = None

    def complete(self, model: str) -> Reply:
        """One token. Waits for a server that is not up; a request is sent once at most."""
        body = json.dumps({"model": model, "prompt": [1, 2, 3], "max_tokens": 1})
        connection = self._connected()
        try:
            connection.request("POST", "/v1/completions", body, self._headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.close()
            return Reply(time.time(), 0, {}, None)
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(time.time(), answer.status, headers, content)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> http.client.HTTPConnection:
        while self._connection is None:
            connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_S)
            try:
                connection.connect()
            except OSError:
                time.sleep(RETRY_PAUSE_S)
            else:
                self._connection = connection
        return self._connection


def at_once(
    roots: Sequence[str],
    api_key: str,
    models: Sequence[str],
    *,
    num_clients: int,
    num_requests: int,
    per_s: float | None = None,
    seen: Callable[[Reply], None] = lambda reply: None,
) -> list[Reply]:
    """Replies to requests for the models in turn, sent as fast as answered, or at a steady rate."""
    numbers = itertools.count()
    replies: list[Reply] = []
    started = time.monotonic()

    def work(place: int) -> None:
        client = Client(roots[place % len(roots)], api_key)
        while (number := next(numbers)) < num_requests:
            if per_s is not None:
                time.sleep(max(0.0, started + number / per_s - time.monotonic()))
            reply = client.complete(models[number % len(models)])
            replies.append(reply)
            seen(reply)
        client.close()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return replies
