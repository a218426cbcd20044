"""What of the published API is served."""

from __future__ import annotations

from fastapi.routing import APIRoute

from tests.contract.spec import OURS, operation
from tunesmith.api.app import ROUTERS


def test_every_route_is_of_the_published_api_or_marked_as_ours() -> None:
    unknown = [
        f"{method} {route.path}"
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if operation(method, route.path.replace("{name:path}", "x")) is None
        and not OURS.fullmatch(route.path)
    ]
    assert unknown == []
