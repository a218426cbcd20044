"""Every setting, once: from arguments, TUNESMITH_* variables, tunesmith.toml, or the default.

`tunesmith.toml` is looked for in the working directory; TUNESMITH_CONFIG names another file.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from tunesmith.tariff import Rates

MODERATION_KEY = "TUNESMITH_MODERATION_API_KEY"
VLLM_KEY = "TUNESMITH_VLLM_API_KEY"
# sun_path holds 108 bytes on Linux, one of them the closing NUL.
MAX_SOCKET_PATH = 100


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="TUNESMITH_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    data: Path = Field(
        Path("tunesmith-data"),
        description="Directory of everything: database, files, models.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    api_key: str | None = Field(
        None, description="First start only: the first API key, instead of a random one."
    )
    organization: str = Field(
        "personal",
        pattern=r"^[a-z0-9-]{1,40}$",
        description="Organisation in tuned models' names.",
    )
    max_file_bytes: int = Field(1 << 30, ge=1, description="Largest uploaded file, bytes.")
    max_body_bytes: int = Field(8 << 20, ge=1024, description="Largest JSON request body, bytes.")
    max_line_bytes: int = Field(1 << 20, ge=1024, description="Longest line of a data file, bytes.")
    train_slots: int = Field(1, ge=1, description="Jobs that one worker trains at the same time.")
    train_threads: int = Field(0, ge=0, description="CPU threads of a trainer; 0 = all cores.")
    train_processes: int = Field(
        1, ge=1, description="Processes that train one job together, one for each GPU."
    )
    save_every_s: float = Field(30.0, gt=0, description="Seconds between safety checkpoints.")
    lease_s: float = Field(15.0, gt=0, description="Seconds until a silent worker loses a job.")
    max_attempts: int = Field(3, ge=1, description="Crashes without progress before a job fails.")
    engine_threads: int = Field(0, ge=0, description="CPU threads of the engine; 0 = all cores.")
    engine_int8: bool = Field(
        False, description="Serve large weights in 8 bits on a CPU: faster, not quite the same."
    )
    engine_memory_bytes: int = Field(
        0, ge=0, description="Budget for loaded models, bytes; 0 = half of the machine's memory."
    )
    engine_max_batch: int = Field(32, ge=1, description="Answers generated at the same time.")
    engine_max_queue: int = Field(256, ge=1, description="Requests that may wait before 503.")
    engine: Literal["local", "vllm"] = Field(
        "local", description="What answers: the engine of this package, or vLLM."
    )
    vllm_python: Path | None = Field(
        None, description="Python of an environment with vLLM, which is then started as needed."
    )
    vllm_url: str | None = Field(
        None, description="vLLM servers that run already: their URLs, separated by commas."
    )
    vllm_api_key: SecretStr | None = Field(None, description="What those servers ask for as a key.")
    vllm_arguments: str = Field("", description="More arguments for `vllm serve`.")
    drain_s: float = Field(30.0, gt=0, description="Seconds that open requests get on shutdown.")
    prices: dict[str, Rates] = Field(
        {},
        description="US dollars by base (`*`: any; `ft:` before it: tuned on it): input, "
        "cached_input, output and training per 1,000 tokens, machine_hour for jobs.",
    )
    requests_per_minute: int | None = Field(
        None, ge=1, description="Requests for answers, for each project and base; none = no limit."
    )
    requests_per_day: int | None = Field(None, ge=1, description="The same for a day.")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Prompt and answer tokens, for each project and base."
    )
    jobs_per_day: int | None = Field(
        None, ge=1, description="Jobs created in 24 hours, for each project and base."
    )
    spend_per_month: Decimal | None = Field(
        None, ge=0, description="What each project may spend in a calendar month, US dollars."
    )
    max_open_requests: int = Field(
        512,
        ge=1,
        description="Requests for answers at work or waiting at the same time before 503.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis that keeps the limits of several API processes; none = in this process.",
    )
    outbound_allow: tuple[str, ...] = Field(
        (),
        description="Hosts, addresses and networks that webhooks may go to although they are not "
        "public, also over plain http.",
    )
    delivery_retry_s: float = Field(
        5.0, gt=0, description="Seconds until a failed delivery is tried again; then threefold."
    )
    delivery_give_up_s: float = Field(
        259200.0, gt=0, description="Seconds after which a delivery that nobody took is dead."
    )
    smtp_url: SecretStr | None = Field(
        None, description="Where e-mail is handed in: smtp://user:password@host:587, or smtps://."
    )
    smtp_from: str = Field("tunesmith@localhost", description="Sender of e-mail.")
    smtp_starttls: bool = Field(
        True, description="With smtp://: send nothing before the connection is encrypted."
    )
    email_domains: tuple[str, ...] = Field(
        (), description="Domains that e-mail may go to; none = all."
    )
    wandb_api_key: SecretStr | None = Field(
        None, description="Weights & Biases key of projects that have none of their own."
    )
    wandb_base_url: str | None = Field(
        None, description="Address of a Weights & Biases server other than the public one."
    )
    wandb_offline: bool = Field(
        False, description="Weights & Biases runs are written to files, for `wandb sync`."
    )
    mlflow_url: str | None = Field(
        None, description="MLflow tracking server that every job is passed on to."
    )
    tensorboard: bool = Field(False, description="Every job writes event files for TensorBoard.")
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token that opens /metrics and nothing else."
    )
    otel_url: str | None = Field(
        None, description="OpenTelemetry collector that traces go to, by OTLP over HTTP."
    )
    moderation: Literal["embedded", "chat", "guard", "off"] = Field(
        "embedded",
        description="Who moderates: the embedded classifier, a chat model, a guard model, nobody.",
    )
    moderation_url: str | None = Field(
        None, description="Base URL of the endpoint of the chat or guard model, up to /v1."
    )
    moderation_model: str | None = Field(None, description="Its name there.")
    moderation_api_key: SecretStr | None = Field(None, description="Key for that endpoint.")
    moderation_fail_share: float = Field(
        0.2, ge=0, le=1, description="Share of flagged rows over which a job fails; 1 = never."
    )
    device: str = Field("auto", description="Where models run: auto, cpu or cuda.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Log level.")

    @model_validator(mode="after")
    def _moderator_has_an_address(self) -> Self:
        asked = self.moderation in ("chat", "guard")
        if asked and not (self.moderation_url and self.moderation_model):
            raise ValueError(
                f"moderation = {self.moderation} needs moderation_url and moderation_model"
            )
        return self

    @field_validator("outbound_allow")
    @classmethod
    def _exceptions_are_understood(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        if entries:
            from tunesmith.ops.outbound import Allowed

            Allowed(entries)
        return entries

    @field_validator("smtp_url")
    @classmethod
    def _mail_server_is_understood(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            from tunesmith.ops.mail import Server

            Server.parse(url.get_secret_value(), starttls=True)
        return url

    @property
    def moderation_key(self) -> str | None:
        key = self.moderation_api_key
        return None if key is None else key.get_secret_value()

    @model_validator(mode="after")
    def _vllm_is_somewhere(self) -> Self:
        if self.engine == "vllm" and not self.vllm_url and not self.vllm_python:
            raise ValueError(
                "The engine vllm needs vllm_python, the Python of an environment with vLLM, or "
                "vllm_url, where one runs."
            )
        return self

    @property
    def data_dir(self) -> Path:
        return self.data.expanduser().resolve()

    @property
    def database_path(self) -> Path:
        return self.data_dir / "tunesmith.db"

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    @property
    def adapters_dir(self) -> Path:
        return self.data_dir / "adapters"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    @property
    def blobs_dir(self) -> Path:
        return self.data_dir / "blobs"

    @property
    def run_dir(self) -> Path:
        return self.data_dir / "run"

    @property
    def engine_socket(self) -> Path:
        """The engine's Unix socket; kept short, whatever the data directory is called."""
        inside = self.run_dir / "engine.sock"
        if len(str(inside)) <= MAX_SOCKET_PATH:
            return inside
        tag = hashlib.sha256(str(self.data_dir).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"tunesmith-{os.getuid()}-{tag}" / "engine.sock"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = Path(os.environ.get("TUNESMITH_CONFIG", "tunesmith.toml"))
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)


def load_settings(**overrides: Any) -> Settings:
    """Settings with the given values on top; None means "not given"."""
    return Settings(**{name: value for name, value in overrides.items() if value is not None})


def secrets_of(settings: Settings) -> list[str]:
    """What must not be told of the settings, text by text."""
    values = [getattr(settings, name) for name in Settings.model_fields]
    given = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
    passwords = [urlsplit(text).password or "" for text in given]
    return [text for text in (*given, *passwords, *map(unquote, passwords)) if text]


def as_environment(settings: Settings) -> dict[str, str]:
    """The variables that give another process these settings, the secret ones among them."""
    return {
        f"TUNESMITH_{name.upper()}": _as_text(getattr(settings, name), value)
        for name, value in settings.model_dump(mode="json").items()
        if value is not None
    }


def without_secrets(environment: Mapping[str, str], keep: str | None = None) -> dict[str, str]:
    """An environment for processes that need no credentials, or but the one in `keep`."""
    secret = {
        f"TUNESMITH_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if name == "api_key" or field.annotation == SecretStr | None
    }
    return {name: value for name, value in environment.items() if name not in secret - {keep}}


def _as_text(value: Any, dumped: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return json.dumps(dumped) if isinstance(dumped, list | dict) else str(dumped)
