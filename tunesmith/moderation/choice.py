"""Which moderator the settings ask for."""

from __future__ import annotations

from typing import Literal

from tunesmith.config import Settings
from tunesmith.moderation.verdict import Moderator

Kind = Literal["embedded", "chat", "guard", "off"]


def moderator(
    kind: Kind, url: str | None = None, model: str | None = None, api_key: str | None = None
) -> Moderator | None:
    """None where moderation is off. Loads nothing that is not needed."""
    if kind == "off":
        return None
    if kind == "embedded":
        from tunesmith.moderation.classifier import embedded

        return embedded()
    from tunesmith.moderation.judge import ChatModerator

    assert url and model, "the settings have checked it"
    return ChatModerator(kind, url, model, api_key)


def of_settings(settings: Settings) -> Moderator | None:
    return moderator(
        settings.moderation,
        settings.moderation_url,
        settings.moderation_model,
        settings.moderation_key,
    )
