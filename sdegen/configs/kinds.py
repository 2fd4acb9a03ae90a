"""The config of each command."""

from sdegen.configs.demo import DemoConfig
from sdegen.configs.fokker_planck import FokkerPlanckConfig
from sdegen.configs.likelihood import LikelihoodConfig
from sdegen.configs.sample import SampleConfig
from sdegen.configs.simulate import SimulateConfig
from sdegen.configs.train import TrainRunConfig
from sdegen.configs.verify import VerifyConfig

__all__ = ["KINDS", "Config"]

Config = (
    SimulateConfig
    | FokkerPlanckConfig
    | TrainRunConfig
    | SampleConfig
    | LikelihoodConfig
    | VerifyConfig
    | DemoConfig
)

KINDS: dict[str, type] = {
    "simulate": SimulateConfig,
    "fokker-planck": FokkerPlanckConfig,
    "verify": VerifyConfig,
    "train": TrainRunConfig,
    "sample": SampleConfig,
    "likelihood": LikelihoodConfig,
    "demo": DemoConfig,
}
