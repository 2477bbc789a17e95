"""The clocks of a host, moved by hand."""

from dataclasses import dataclass


@dataclass
class FakeClock:
    """Time as an argument: tests move it and never sleep."""

    wall: float = 1_800_000_000.0
    mono: float = 1_000.0
    boot_id: str = "first boot"

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def boot(self) -> str:
        return self.boot_id

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds
