"""Every served operation of the published API, called once on a running service.

Each answer must be a success and valid under the published schema; what was called is what
docs/compatibility.md calls served.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.contract.spec import operation, problems
from tests.service import BASE, ROW, Service
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.ids import SystemClock, SystemRng
from tunesmith.organization import Organization
from tunesmith.store.repo import jobs, keys, models
from tunesmith.store.repo.models import ModelRow

Operation = tuple[str, str]

PROJECT = "/organization/projects/{project_id}"
ACCOUNTS = PROJECT + "/service_accounts"
JOB = "/fine_tuning/jobs/{fine_tuning_job_id}"


@dataclass
class Walk:
    service: Service
    seen: set[Operation] = field(default_factory=set)

    def __call__(self, method: str, template: str, body: Any = None, **given: Any) -> Any:
        """Calls one operation; names in the template are filled in, the rest goes to the client."""
        names = {name: given.pop(name) for name in list(given) if f"{{{name}}}" in template}
        path = "/v1" + template.format(**names)
        answer = self.service.http.request(method, path, json=body, **given)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
        self.seen.add((method, template))
        if template.endswith("/content"):
            return answer.content
        pointer = operation(method, path)
        assert pointer is not None
        found = json.loads(answer.content)
        assert problems(pointer, found) == []
        return found


def every_operation(service: Service, model: str) -> set[Operation]:
    """All that was called. `model` must be served by the engine."""
    walk = Walk(service)
    answers(walk, model)
    file_id = files(walk)
    tuning(walk, file_id)
    organisation(walk)
    people(walk)
    accounting(walk)
    return walk.seen


def answers(walk: Walk, model: str) -> None:
    messages = [{"role": "user", "content": "the quick brown fox"}]
    walk("post", "/chat/completions", {"model": model, "messages": messages, "max_tokens": 2})
    walk("post", "/completions", {"model": model, "prompt": "the quick", "max_tokens": 2})
    walk("post", "/embeddings", {"model": model, "input": ["the", "fox"]})
    walk("post", "/moderations", {"input": ["the quick brown fox", "I will kill them all"]})
    walk("get", "/models")
    walk("get", "/models/{model}", model=model)


def files(walk: Walk) -> str:
    upload = {"data": {"purpose": "fine-tune"}, "files": {"file": ("rows.jsonl", ROW * 12)}}
    file_id: str = walk("post", "/files", **upload)["id"]
    other = walk("post", "/files", **upload)["id"]
    walk("get", "/files")
    walk("get", "/files/{file_id}", file_id=file_id)
    walk("get", "/files/{file_id}/content", file_id=file_id)
    walk("delete", "/files/{file_id}", file_id=other)
    return file_id


def tuning(walk: Walk, file_id: str) -> None:
    job = {"fine_tuning_job_id": ""}
    made = walk("post", "/fine_tuning/jobs", {"model": BASE, "training_file": file_id})
    job["fine_tuning_job_id"] = made["id"]
    walk("get", "/fine_tuning/jobs")
    walk("get", JOB, **job)
    walk("get", JOB + "/events", **job)
    walk("get", JOB + "/checkpoints", **job)
    with walk.service.db.write() as conn:
        jobs.update(conn, made["id"], status="queued")
    walk("post", JOB + "/pause", **job)
    walk("post", JOB + "/resume", **job)
    walk("post", JOB + "/cancel", **job)
    name = "ft:gpt-4o-mini:personal::WaLkWaLk"
    with walk.service.db.write() as conn:
        row = ModelRow(
            name, DEFAULT_PROJECT, "tuned", BASE, BASE, "0" * 64, made["id"], 5, "personal"
        )
        models.insert(conn, row)
    walk("delete", "/models/{model}", model=name)


def organisation(walk: Walk) -> None:
    project = {"project_id": walk("post", "/organization/projects", {"name": "Walk"})["id"]}
    walk("get", "/organization/projects")
    walk("get", PROJECT, **project)
    walk("post", PROJECT, {"name": "Walk on"}, **project)
    limits = walk("get", PROJECT + "/rate_limits", **project)["data"]
    limit = {**project, "rate_limit_id": limits[0]["id"]}
    path = PROJECT + "/rate_limits/{rate_limit_id}"
    walk("post", path, {"max_requests_per_1_minute": 100}, **limit)
    account = walk("post", ACCOUNTS, {"name": "ci"}, **project)
    walk("get", ACCOUNTS, **project)
    one = {**project, "service_account_id": account["id"]}
    walk("get", ACCOUNTS + "/{service_account_id}", **one)
    walk("post", ACCOUNTS + "/{service_account_id}", {"name": "cd"}, **one)
    walk("post", ACCOUNTS + "/{service_account_id}/api_keys", {"name": "second"}, **one)
    walk("delete", ACCOUNTS + "/{service_account_id}", **one)
    walk("get", "/organization/admin_api_keys")
    key = walk("post", "/organization/admin_api_keys", {"name": "walk"})["id"]
    walk("get", "/organization/admin_api_keys/{key_id}", key_id=key)
    walk("delete", "/organization/admin_api_keys/{key_id}", key_id=key)
    walk("post", PROJECT + "/archive", **project)


def people(walk: Walk) -> None:
    db, data = walk.service.db, walk.service.settings.data_dir
    ours = Organization(db, SystemClock(), SystemRng(), keys.load_pepper(data))
    user = {"user_id": ours.add_user("ann@example.com", "Ann", "reader").id}
    walk("get", "/organization/users")
    walk("get", "/organization/users/{user_id}", **user)
    walk("post", "/organization/users/{user_id}", {"role": "owner"}, **user)
    project = {"project_id": walk("post", "/organization/projects", {"name": "Team"})["id"]}
    walk("post", PROJECT + "/users", {**user, "role": "member"}, **project)
    walk("get", PROJECT + "/users", **project)
    walk("get", PROJECT + "/users/{user_id}", **project, **user)
    walk("post", PROJECT + "/users/{user_id}", {"role": "owner"}, **project, **user)
    key, _ = ours.create_key(project["project_id"], "Ann's", "owner", user_id=user["user_id"])
    walk("get", PROJECT + "/api_keys", **project)
    walk("get", PROJECT + "/api_keys/{api_key_id}", **project, api_key_id=key.id)
    walk("delete", PROJECT + "/api_keys/{api_key_id}", **project, api_key_id=key.id)
    walk("delete", PROJECT + "/users/{user_id}", **project, **user)
    walk("delete", "/organization/users/{user_id}", **user)


def accounting(walk: Walk) -> None:
    for kind in ("completions", "embeddings", "moderations"):
        walk("get", f"/organization/usage/{kind}", params={"start_time": 0, "limit": 1})
    walk("get", "/organization/costs", params={"start_time": 0, "limit": 1})
