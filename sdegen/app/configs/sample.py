"""What sdegen sample is asked."""

import math
from dataclasses import dataclass
from typing import Literal

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import Precision
from sdegen.core.checks import check_count, check_positive

NoisyRoute = Literal["ddpm", "sde", "sde-torchsde", "sde-adams", "sde-dpmpp"]
FlowRoute = Literal["flow-heun", "flow-ddim", "flow-adams", "flow-dpmpp", "flow-dopri5"]
Route = Literal["default", NoisyRoute, FlowRoute]


@dataclass(frozen=True)
class SampleConfig(Config):
    """Generate samples with a trained model.

    Writes samples.safetensors, metrics.json and samples.png.

    Args:
        model: A model.safetensors, or the run folder of sdegen train that holds it.
        samples: How many.
        route: default, what sdegen.sample takes: 50 steps of an exponential multistep method along
            the probability flow, equal in log SNR, images denoised at the end. Or ddpm
            (ancestral), sde (Euler-Maruyama), sde-torchsde (its heun), or the probability flow by
            heun, ddim or dopri5; and both, for few steps, by adams (exponential multistep, of
            order 2 for the SDE and 3 for the flow) or dpmpp (DPM-Solver++ 2M).
        steps: Steps of the route, 50 of the default and 200 of any other unless said; dopri5
            chooses its own. The times of the other flows are made from the flow itself, at 400
            evaluations for each of 48 states and about 50 N more, N up to 50 steps.
        tolerance: Relative and absolute tolerance of dopri5.
        shape: Shape of one sample; that of the training data unless said.
        label: Class that is asked for, of a model trained with --classes; all of them unless said.
        guidance: w of classifier-free guidance, (1 + w) s(x | label) − w s(x): 0 is the class as
            learned, more overstates it at twice the evaluations.
        data: Data to measure the distance to, named as for sdegen train; those held out from
            training where there are such.
        dtype: Precision of the states.
        device: Where they live: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    model: str
    samples: int = 1_000
    route: Route = "default"
    steps: int | None = None
    tolerance: float = 1e-5
    shape: tuple[int, ...] | None = None
    label: int | None = None
    guidance: float = 0.0
    data: str | None = None
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        self.check_counts({"samples": 1, "steps": 1, "label": 0})
        check_positive("tolerance", self.tolerance)
        if not -1 <= self.guidance < math.inf:
            raise ValueError(
                f"guidance must be finite and ≥ −1, but is {self.guidance:g}; 0 is the class as "
                "learned."
            )
        if self.guidance and self.label is None:
            raise ValueError("guidance overstates a class; say which, --label 3.")
        if self.shape is not None and not self.shape:
            raise ValueError(
                "shape must have at least one number; pass --shape 2, or --shape 1 8 8."
            )
        for size in () if self.shape is None else self.shape:
            check_count("shape", size)
        super().__post_init__()
