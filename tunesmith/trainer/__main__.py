"""`python -m tunesmith.trainer validate JOB_DIR` and `... train JOB_DIR`: a phase by hand."""

from __future__ import annotations

import sys
from pathlib import Path

from tunesmith.errors import TunesmithError
from tunesmith.model.threads import wait_briefly

USAGE = "usage: python -m tunesmith.trainer validate|train JOB_DIR"


def main(arguments: list[str]) -> int:
    if len(arguments) != 2 or arguments[0] not in ("validate", "train"):
        print(USAGE, file=sys.stderr)
        return 2
    wait_briefly()
    from tunesmith.trainer.process import run

    try:
        return run("validate" if arguments[0] == "validate" else "train", Path(arguments[1]))
    except TunesmithError as error:
        print(error.message, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
