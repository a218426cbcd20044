"""Which chats are prepared where they are, without a way to a thread and back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service import BASE, Service
from tunesmith.access import DEFAULT_PROJECT
from tunesmith.api.app import open_services
from tunesmith.api.chat_request import LIGHT_BYTES, is_light, prepare
from tunesmith.errors import NotFound
from tunesmith.wire.chat import CreateChatCompletion


def chat(**more: Any) -> CreateChatCompletion:
    messages = [{"role": "user", "content": "Hi"}]
    return CreateChatCompletion.model_validate({"model": BASE, "messages": messages, **more})


def test_short_ones_whose_renderer_is_at_hand(service: Service) -> None:
    svc = open_services(service.settings)
    assert not is_light(svc, DEFAULT_PROJECT, chat(), 100)
    prepare(svc, DEFAULT_PROJECT, chat())
    assert is_light(svc, DEFAULT_PROJECT, chat(), LIGHT_BYTES)
    assert not is_light(svc, DEFAULT_PROJECT, chat(), LIGHT_BYTES + 1)
    function = {"name": "f", "parameters": {"type": "object"}}
    for more in (
        {"tools": [{"type": "function", "function": function}]},
        {"functions": [function]},
        {"response_format": {"type": "json_object"}},
    ):
        assert not is_light(svc, DEFAULT_PROJECT, chat(**more), 100)
    with pytest.raises(NotFound):
        is_light(svc, DEFAULT_PROJECT, chat(model="nobody's"), 100)
    svc.db.close()


def test_none_while_a_renderer_is_loaded(service: Service) -> None:
    svc = open_services(service.settings)
    prepare(svc, DEFAULT_PROJECT, chat())
    with svc.renderers._lock:
        assert not is_light(svc, DEFAULT_PROJECT, chat(), 100)
    svc.db.close()
