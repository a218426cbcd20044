"""What of the published API is served."""

from __future__ import annotations

from fastapi.routing import APIRoute

from tests.contract.spec import document, operation
from tunesmith.api.app import ROUTERS

# Listing stored completions; storing is refused, so there are none.
LEFT_OUT = {("get", "/chat/completions")}
NOT_PUBLISHED = {
    *("/healthz", "/readyz", "/metrics"),
    *("/tokenize", "/detokenize", "/tokenizer_info"),
}


def test_every_published_operation_has_a_route_and_no_other_route_is_there() -> None:
    served = {
        operation(method, route.path.replace("{name:path}", "x").replace("{", "").replace("}", ""))
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        and route.path not in NOT_PUBLISHED
        and not route.path.startswith("/v1/tunesmith/")
        for method in route.methods
    }
    published = {
        operation(method, "/v1" + path.replace("{", "").replace("}", ""))
        for path, methods in document()["paths"].items()
        for method in methods
        if (method, path) not in LEFT_OUT
    }
    assert served == published
