"""TrainConfig: how a score is learned, in plain numbers and words.

Imports no torch: a command line that only prints its help need not wait for it.
"""

from dataclasses import dataclass
from typing import Literal

from sdegen.core.checks import check_share
from sdegen.training.config import FitConfig

Weighting = Literal["simple", "likelihood", "variational", "min-snr", "flow-matching", "edm"]


@dataclass(frozen=True)
class TrainConfig(FitConfig):
    """How a score is learned: what a `FitConfig` says, and two parameters of `DenoisingLoss`.

        L = (1/Z) ∫ w(t) E ‖ε̂ − ε‖²/d dt,     SNR = α²/σ²

    Args:
        weighting: Which noise levels count: "simple" (uniform in t), "likelihood" or
            "variational" (g²/σ², which is uniform in log-SNR), "min-snr" (min(1, 5/SNR)), and
            "flow-matching" or "edm" (the losses of these methods, in the network's own output).
        label_dropout: Share of the rows of a step whose label is kept from the network, so that
            it learns the score without a label too; where there are labels.

    Example:
        >>> network, path = sg.MLP(1, rng=0), sg.RectifiedFlow()
        >>> model = sg.ScoreModel(network, path, sg.FlowPrediction())
        >>> config = sg.TrainConfig(steps=1, batch_size=4096, weighting="flow-matching")
        >>> losses = sg.train(model, torch.tensor([[-1.0], [1.0]]), config, rng=0).losses
        >>> f"{losses.item():.1f}"  # untrained: E (ε − x0)² = 1 + 1
        '2.0'
    """

    weighting: Weighting = "likelihood"
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("label_dropout", self.label_dropout)
