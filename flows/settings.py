"""Settings of the flows floor: where the LaunchPad is, and the policy that a new campaign starts with."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Flow settings, from `WYLOOP_FLOWS_*` and the `[flows]` table of `wyloop.toml`."""

    model_config = SettingsConfigDict(env_prefix="WYLOOP_FLOWS_", extra="forbid", use_attribute_docstrings=True)

    launchpad_database: str = "wyloop_fireworks"
    """Name of the FireWorks database, on the same MongoDB as the stores."""
    run_folder: Path | None = None
    """Where workers keep the scratch files of their jobs; a temporary folder if not given."""
    lease_seconds: float = Field(default=900.0, gt=0)
    """How long one owner may advance a campaign before others may take over, s."""
    reservation_seconds: float = Field(default=30.0, ge=0)
    """Age of a job's reservation without a launch after which the worker that made it is taken to be gone, s."""
    lost_after_seconds: float = Field(default=4 * 3600.0, gt=0)
    """Silence of a worker on another host after which its job is lost and runs elsewhere, s; it tells every hour."""
    wall_time: float | None = Field(default=None, gt=0)
    """Most that a worker gives one DFT calculation, s; not given, the protocol's own limit counts."""
    raw_files: Literal["drop", "keep"] = "drop"
    """Whether workers keep the calculators' logs (in GridFS, compressed); of a failed one the tail is kept anyway."""
    published_weights: Path | None = None
    """Weights of the published model (safetensors), for campaigns whose policy names the generator `published`."""
    dashboard_url: str | None = Field(default=None, pattern="^https?://")
    """Address of the dashboard, which what Prefect shows links to; `wyloop up` sets it."""
