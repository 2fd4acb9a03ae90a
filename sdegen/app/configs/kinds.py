"""The config of each command."""

from sdegen.app.configs.demo import DemoConfig
from sdegen.app.configs.fokker_planck import FokkerPlanckConfig
from sdegen.app.configs.likelihood import LikelihoodConfig
from sdegen.app.configs.sample import SampleConfig
from sdegen.app.configs.simulate import SimulateConfig
from sdegen.app.configs.train import TrainRunConfig
from sdegen.app.configs.verify import VerifyConfig

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
