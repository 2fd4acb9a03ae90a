"""Training: a module from data and a loss. It knows no score.

Example:
    >>> class Square(sg.Loss):
    ...     def __call__(self, module, batch, noise):
    ...         return (module(batch.rows) - batch.labels).square().sum(1)
    >>> x, line = torch.linspace(-1, 1, 64)[:, None], torch.nn.Linear(1, 1)
    >>> config = sg.FitConfig(steps=200, batch_size=64, learning_rate=0.1, warmup=0, ema_decay=0.9)
    >>> _ = sg.fit(line, x, Square(), config, labels=2 * x, rng=0)
    >>> f"{line.weight.item():.1f}"
    '2.0'
"""

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
