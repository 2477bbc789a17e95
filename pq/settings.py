"""The settings, from the environment or a .env file in the working folder; flags win over both."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pq.errors import InvalidJobError

DEFAULT_DATABASE = "queue.db"


@dataclass(frozen=True)
class Settings:
    """The original system's four settings, and where files lie.

    `database` is what `pq.connect()` opens (PQ_URL, else QUEUE_DB_FILE). `max_attempts` goes into jobs
    that name none (MAX_ATTEMPTS). `lease` is how long a silent consumer keeps its jobs
    (TIMEOUT_SECONDS). `interval` lies between two files of the producer (INTERVAL_TIME). `runs` is the place
    of executed notebooks, None for runs/ beside the queue (PQ_RUNS). `folder` is that of inbox/,
    processed/, runs/ and logs/ of a queue on a server, None for the working folder (PQ_FOLDER). `preload` are
    the modules that warm kernels have imported (PQ_PRELOAD, `pandas,numpy`), `cold` switches warm kernels off
    (PQ_COLD=1).
    """

    database: str
    max_attempts: int
    lease: timedelta
    interval: timedelta
    runs: str | None = None
    folder: str | None = None
    preload: tuple[str, ...] = ()
    cold: bool = False


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings as they are now. Raises InvalidJobError naming the one that is wrong."""
    values = dict(_dotenv()) | dict(os.environ) if environment is None else dict(environment)
    return Settings(
        database=values.get("PQ_URL") or values.get("QUEUE_DB_FILE") or DEFAULT_DATABASE,
        max_attempts=int(_number(values, "MAX_ATTEMPTS", 3, least=1)),
        lease=timedelta(seconds=_number(values, "TIMEOUT_SECONDS", 30, least=1)),
        interval=timedelta(seconds=_number(values, "INTERVAL_TIME", 5, least=0.001)),
        runs=values.get("PQ_RUNS") or None,
        folder=values.get("PQ_FOLDER") or None,
        preload=tuple(values.get("PQ_PRELOAD", "").replace(",", " ").split()),
        cold=values.get("PQ_COLD") == "1",
    )


def _number(values: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = values.get(name, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        raise InvalidJobError(f"{name} must be a number, not {text!r:.50}") from None
    if not least <= number <= 1e9:
        raise InvalidJobError(f"{name} must be at least {least}: {text:.50}")
    return number


def _dotenv() -> Mapping[str, str]:
    path = Path(".env")
    if not path.is_file():
        return {}
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(path).items() if value is not None}
