"""Sets the limits of a base over the API, for the scripts that meet them."""

from __future__ import annotations

import json
import urllib.request

NO_LIMIT = 2**31 - 1
NAMES = ("requests_per_1_minute", "tokens_per_1_minute", "fine_tuning_jobs_per_1_day")


def set_limits(base_url: str, api_key: str, base: str, **limits: int) -> None:
    """Those that are not given are taken away."""
    url = f"{base_url}/organization/projects/proj_default/rate_limits/rl-{base}"
    body = {f"max_{name}": limits.get(name, NO_LIMIT) for name in NAMES}
    headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    urllib.request.urlopen(request).close()
