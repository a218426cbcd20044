"""GET /v1/tunesmith/status."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.service import Service
from tunesmith.jobs import presence


def test_how_the_server_is(service: Service) -> None:
    body = service.http.get("/v1/tunesmith/status").json()
    assert body["object"] == "tunesmith.status"
    assert body["organization"] == "personal"
    assert 0 < body["disk"]["free_bytes"] <= body["disk"]["total_bytes"]
    assert body["jobs"] == {}
    # Neither an engine nor a worker belongs to a service in a test.
    assert body["engine"]["state"] == "unreachable"
    assert body["engine"]["message"]
    assert body["worker"] == {"is_alive": False, "slots": 1}


def test_a_worker_is_there_as_long_as_its_process(tmp_path: Path) -> None:
    assert not presence.is_any(tmp_path)
    code = (
        "import sys, pathlib; from tunesmith.jobs import presence\n"
        "with presence.at_work(pathlib.Path(sys.argv[1])): print('here', flush=True); input()"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdin=pipe, stdout=pipe) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"here\n"
        assert presence.is_any(tmp_path)
        with presence.at_work(tmp_path):
            assert presence.is_any(tmp_path)
        worker.kill()
        worker.wait()
        assert not presence.is_any(tmp_path)
