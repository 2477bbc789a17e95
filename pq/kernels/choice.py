"""Which kernels the notebooks of a consumer get, where the consumer was told and not the settings."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pq.errors import InvalidJobError
from pq.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """`preload` are the modules that warm kernels have imported; `cold`: there are none."""

    preload: tuple[str, ...] = ()
    cold: bool = False


chosen: ContextVar[KernelChoice | None] = ContextVar("chosen", default=None)


def choose(preload: Sequence[str] | None = None, *, cold: bool | None = None) -> KernelChoice:
    """What is given, else what the settings say. Raises InvalidJobError for what names no module."""
    settings = read_settings()
    names = settings.preload if preload is None else tuple(preload)
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise InvalidJobError(f"cannot preload {name!r:.100}: it is no module's name")
    return KernelChoice(names, settings.cold if cold is None else cold)
