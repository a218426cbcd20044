"""docs/compatibility.md tells of every published operation, and tells the truth."""

from __future__ import annotations

from fastapi.routing import APIRoute

from tests.contract.compatibility import DOCUMENT, NOT_SERVED, PARTLY, table
from tests.contract.operations import every_operation
from tests.contract.spec import document, operation
from tests.service import Service
from tunesmith.api.app import ROUTERS


def test_the_document_is_what_the_walk_over_all_operations_makes(live: Service) -> None:
    served = every_operation(live, "tiny")
    assert DOCUMENT.read_text(encoding="utf-8") == table(served), "run `make compatibility`"
    routed = {
        found
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if (found := operation(method, route.path.replace("{name:path}", "x")))
    }
    called = {operation(method, "/v1" + path) for method, path in served}
    assert routed == called, "a published operation is routed and not called, or the other way"


def test_nothing_is_spoken_of_that_is_not_published() -> None:
    published = {(method, path) for method, path in document()["operations"]}
    assert set(PARTLY) <= published
    assert all(any(path.startswith(each) for _, path in published) for each in NOT_SERVED)
