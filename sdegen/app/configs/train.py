"""What sdegen train is asked."""

from dataclasses import dataclass
from typing import Literal

from sdegen.app.configs.base import Config
from sdegen.app.configs.fields import Precision
from sdegen.core.checks import check_positive
from sdegen.score.config import TrainConfig


@dataclass(frozen=True)
class TrainRunConfig(TrainConfig, Config):
    """Learn the score of data under a noising SDE.

    Writes model.safetensors, losses.safetensors, metrics.json, losses.png and, on the way,
    checkpoints, from which
    --resume FOLDER goes on to the same bits.

    Args:
        data: two_moons, eight_gaussians, swiss_roll, checkerboard, digits; or a file: .npy,
            .safetensors with one tensor, or file.py:name of a tensor or of a function that returns
            one. Shape (n, *event), scaled to order one.
        samples: Points drawn from a planar set.
        validation: Rows set aside, or drawn besides, on which the loss is followed; 0 follows
            none.
        family: The noising SDE.
        schedule: How fast VP and sub-VP noise; the others have one of their own.
        beta_min: β at t = 0 of the linear and quadratic schedules; the rate of the constant one.
        beta_max: β at t = 1 of the linear and quadratic schedules.
        sigma_min: Noise scale of VE's start, smallest noise of EDM.
        sigma_max: Noise scale of VE's end, largest noise of EDM.
        network: An MLP for vectors, a U-Net for images of shape (channels, height, width).
        width: Units of a hidden layer, or channels of the U-Net's first level; the network's own
            default unless said.
        depth: Residual blocks of the MLP, or levels of the U-Net; the network's own default unless
            said.
        parameterization: What the network predicts; flow goes with the rectified flow and
            --weighting flow-matching, edm with EDM and --weighting edm.
        sigma_data: Standard deviation of the data, for the network of EDM.
        classes: Tell the network the labels of the data (of the named data, the digits have some),
            so that sdegen sample --label can ask for one class.
        dtype: Precision of the network.
        device: Where it is trained: cpu, cuda, cuda:1.
        seed: Seed of all random numbers; fresh unless said, and written to config.toml.
        threads: CPU threads; torch's choice unless said.
    """

    data: str = "two_moons"
    samples: int = 10_000
    validation: int = 0
    family: Literal["vp", "subvp", "ve", "rectified-flow", "edm"] = "vp"
    schedule: Literal["linear", "constant", "quadratic", "cosine"] = "linear"
    beta_min: float = 0.1
    beta_max: float = 20.0
    sigma_min: float = 0.01
    sigma_max: float = 50.0
    network: Literal["mlp", "unet"] = "mlp"
    width: int | None = None
    depth: int | None = None
    parameterization: Literal["eps", "x0", "v", "score", "flow", "edm"] = "eps"
    sigma_data: float = 0.5
    classes: bool = False
    dtype: Precision = "float32"
    device: str = "cpu"
    seed: int | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        TrainConfig.__post_init__(self)
        self.check_counts({"samples": 1, "validation": 0, "width": 1, "depth": 1})
        if self.keep == "best" and self.validation == 0:
            raise ValueError(
                "keep = 'best' asks for the best weights on validation data; pass --validation, "
                "say 1000."
            )
        scales = ("beta_min", "beta_max", "sigma_min", "sigma_max", "sigma_data")
        self.check_each(check_positive, *scales)
        Config.__post_init__(self)
