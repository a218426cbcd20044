"""Every setting, once: from arguments, TUNESMITH_* variables, tunesmith.toml, or the default.

`tunesmith.toml` is looked for in the working directory; TUNESMITH_CONFIG names another file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

# sun_path holds 108 bytes on Linux, one of them the closing NUL.
MAX_SOCKET_PATH = 100


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TUNESMITH_", extra="forbid", frozen=True)

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
    vllm_api_key: str | None = Field(None, description="What those servers ask for as a key.")
    vllm_arguments: str = Field("", description="More arguments for `vllm serve`.")
    drain_s: float = Field(30.0, gt=0, description="Seconds that open requests get on shutdown.")
    price_per_1k_tokens: float | None = Field(
        None, ge=0, description="What 1,000 trained tokens cost here, US dollars; for estimates."
    )
    price_per_hour: float | None = Field(
        None, ge=0, description="What an hour of this machine costs, US dollars; for estimates."
    )
    device: str = Field("auto", description="Where models run: auto, cpu or cuda.")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Log level.")

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
