"""What sdegen likelihood is asked."""

from dataclasses import dataclass
from typing import Literal

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import Precision
from sdegen.core.checks import check_positive


@dataclass(frozen=True)
class LikelihoodConfig(Config):
    """Compute log-likelihoods of data under a trained model, by its probability flow.

    Writes likelihood.safetensors (log_prob, bits_per_dim, standard_error), metrics.json and
    likelihood.png.

    Args:
        model: A model.safetensors, or the run folder of sdegen train that holds it.
        data: Data, named as for sdegen train; those held out from training where there are such.
        samples: Rows that are taken, the first ones; all of a file, and 1,000 of a planar set,
            unless said.
        divergence: Of the flow: exact, or Hutchinson's estimate, for events of many numbers.
        probes: Random vectors of Hutchinson's estimate.
        tolerance: Relative and absolute tolerance of the flow's solver.
        bin_width: Width of one integer value in dequantised data; known for the digits, else 1.
        dtype: Precision of the states.
        device: Where they live: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    model: str
    data: str
    samples: int | None = None
    divergence: Literal["exact", "hutchinson"] = "exact"
    probes: int = 1
    tolerance: float = 1e-6
    bin_width: float | None = None
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        self.check_counts({"samples": 1, "probes": 1})
        self.check_each(check_positive, "tolerance", "bin_width")
        super().__post_init__()
