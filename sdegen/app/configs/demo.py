"""What sdegen demo is asked."""

from dataclasses import dataclass

from sdegen.app.configs.base import Config


@dataclass(frozen=True)
class DemoConfig(Config):
    """Run the demonstration: particles and densities, digits from noise, DDPM as an SDE.

    Writes report.html, metrics.json and the pictures in it; under five minutes on two CPU cores.

    Args:
        quick: A rehearsal with small numbers, whose claims are not held to.
        seed: Seed of all random numbers.
        threads: CPU threads; torch's choice unless said.
    """

    quick: bool = False
    seed: int = 0
    threads: int | None = None
