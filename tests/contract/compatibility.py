"""docs/compatibility.md: one row for each operation of the published API.

    python -m tests.contract.compatibility        # writes it anew: `make compatibility`

An operation is served if `operations.py` has called it and its answer was valid; what is said of
the others, and what of a served one is missing, stands here.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from tests.clients.__main__ import LIBRARIES, NODE_CLIENT, PROMPTFOO, PYTHON_CLIENTS
from tests.contract.live import live_service
from tests.contract.operations import Operation, every_operation
from tests.contract.spec import document

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
Status = Literal["partly", "not yet", "refused"]

PARTLY: dict[Operation, str] = {
    ("post", "/chat/completions"): (
        "text only; images, audio, `store: true` and hosted tools such as web search are refused"
    ),
    ("post", "/completions"): "no `suffix`",
    ("post", "/fine_tuning/jobs"): (
        "methods `supervised` and `dpo`; `reinforcement` not yet. Integrations: `wandb`"
    ),
    ("post", "/moderations"): (
        "text only. The embedded classifier flags six of the thirteen categories "
        "([moderation.md](moderation.md)); a guard or chat model of yours can do more"
    ),
    ("get", "/files/{file_id}/content"): (
        "result files are Base64, as from the hosted service; plain with `?format=csv`"
    ),
    ("get", "/organization/costs"): "by the prices in the settings",
    ("post", "/organization/projects/{project_id}/rate_limits/{rate_limit_id}"): (
        "requests and tokens; images, audio and batches have no limits of their own"
    ),
}
NOT_SERVED: dict[str, tuple[Status, str]] = {
    "/batches": ("not yet", "batches of requests"),
    "/chat/completions": ("not yet", "no chat completions are stored"),
    "/evals": ("not yet", "evals"),
    "/fine_tuning/alpha/graders": ("not yet", "graders come with reinforcement"),
    "/fine_tuning/checkpoints": (
        "not yet",
        "a tuned model belongs to one project; bases can be reserved to projects",
    ),
    "/organization/invites": (
        "refused",
        "there is no sign-up to invite to: `tunesmith users add` makes the user at once",
    ),
    "/organization/users/{user_id}/roles": (
        "refused",
        "a user has one role in the organisation and one in each project; they are set where the "
        "user is changed",
    ),
    "/responses": ("not yet", "use chat completions; every client still speaks them"),
    "/uploads": ("not yet", "send the file in one piece: `POST /files` takes up to 1 GB"),
}
HEAD = """# Compatibility

One row for each operation of OpenAI's published API that concerns fine-tuning, the models made by
it, and the administration around them. Made by `make compatibility` from the tests: what is *done*
or *partly* done has been called, and its answer was valid under the published schema. The few
places where the file disagrees with the hosted service, and the service is followed, are listed
with reasons in `tests/contract/spec.py`.

"""


def status_of(operation: Operation, served: set[Operation]) -> tuple[str, str]:
    if operation in served:
        note = PARTLY.get(operation)
        return ("partly", note) if note else ("done", "")
    longest = max((p for p in NOT_SERVED if operation[1].startswith(p)), key=len, default=None)
    assert longest is not None, f"{operation} is neither served nor spoken of"
    return NOT_SERVED[longest]


def table(served: set[Operation]) -> str:
    lines = ["| operation | | |", "|---|---|---|"]
    counts: dict[str, int] = {}
    for method, path in document()["operations"]:
        status, note = status_of((method, path), served)
        counts[status] = counts.get(status, 0) + 1
        lines.append(f"| `{method.upper()} {path}` | {status} | {note} |")
    total = ", ".join(f"{num} {status}" for status, num in counts.items())
    return (
        f"{HEAD}Of {len(lines) - 2} operations: {total}.\n\n" + "\n".join(lines) + "\n" + clients()
    )


def clients() -> str:
    """What `make clients` runs."""
    lines = [
        "\n## Clients\n",
        "`make clients` runs these against a live server, each with the code that its users write:"
        " files, jobs to their end, and answers of the tuned model.\n",
        "| client | version |",
        "|---|---|",
    ]
    lines += [f"| `openai` (Python) | {version} |" for version in dict(PYTHON_CLIENTS)]
    lines += [f"| `openai` (Node) | {NODE_CLIENT[1]} |"]
    for packages in LIBRARIES.values():
        name, _, version = packages[0].partition("==")
        lines.append(f"| `{name}` | {version} |")
    return "\n".join([*lines, f"| `promptfoo` | {PROMPTFOO[1]} |\n"])


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, live_service(Path(scratch)) as service:
        DOCUMENT.write_text(table(every_operation(service, "tiny")), encoding="utf-8")


if __name__ == "__main__":
    main()
