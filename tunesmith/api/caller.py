"""Who a request is made by, as the gate found it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from tunesmith.access import Caller


async def _caller(request: Request) -> Caller:
    caller = request.scope["state"]["caller"]
    assert isinstance(caller, Caller)
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]
