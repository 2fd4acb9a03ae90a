"""Training: a module from data and a loss. It knows no score."""

import lazy_loader

# a configuration looks at this room too, and must not bring torch
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "callbacks": ["Callback", "JSONLines", "StepReport", "TensorBoard"],
        "config": ["FitConfig"],
        "fitting": ["fit"],
        "loss": ["Batch", "BatchNoise", "Loss"],
        "result": ["TrainResult"],
    },
)
