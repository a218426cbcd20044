"""The API's own OpenAPI document on standard output; the web app's types are made of it."""

from __future__ import annotations

import json
import sys

from fastapi import FastAPI

from tunesmith import __version__
from tunesmith.api.app import ROUTERS


def document() -> dict[str, object]:
    app = FastAPI(title="Tunesmith", version=__version__)
    for router in ROUTERS:
        app.include_router(router)
    return app.openapi()


if __name__ == "__main__":
    json.dump(document(), sys.stdout, indent=1, sort_keys=True)
