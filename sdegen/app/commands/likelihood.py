"""sdegen likelihood: log p of data under a trained model.

Rows are carried in blocks, so that memory is bounded, there is progress to be seen, and Ctrl-C
leaves the blocks that are done. Each block has a seed of its own for its probes.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from sdegen import plots
from sdegen.app.commands.datasets import held_out
from sdegen.app.commands.models import load_model, model_file
from sdegen.app.commands.objects import device_of, dtype_of
from sdegen.app.configs.likelihood import LikelihoodConfig
from sdegen.core.noise import Streams
from sdegen.data import BIN_WIDTH
from sdegen.likelihood.divergence import Hutchinson
from sdegen.likelihood.flow import Likelihood, log_likelihood
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.storage import save_tensors

_BLOCK = 256  # rows


def resolved(config: LikelihoodConfig) -> LikelihoodConfig:
    """Settle the file of the model and the width of a bin."""
    width = config.bin_width
    if width is None:
        width = BIN_WIDTH if config.data == "digits" else 1.0
    return dataclasses.replace(config, model=model_file(config.model), bin_width=width)


def run(config: LikelihoodConfig, folder: Path, progress: bool) -> dict[str, Any]:
    """Compute log p of each row, and write likelihood.safetensors and likelihood.png.

    Returns:
        The metrics: means and their standard errors, in nats and in bits per dimension.
    """
    device, dtype = device_of(config.device), dtype_of(config.dtype)
    assert config.seed is not None  # it is resolved
    assert config.bin_width is not None
    model = load_model(config.model, dtype, device)
    x = held_out(config.data, samples=config.samples, seed=config.seed, dtype=dtype, device=device)
    streams, done = Streams(config.seed, "likelihood"), list[Likelihood]()
    solver = TorchDiffEq("dopri5", rtol=config.tolerance, atol=config.tolerance)
    exact = config.divergence == "exact"
    parts = [x[i : i + _BLOCK] for i in range(0, len(x), _BLOCK)]
    blocks = tqdm(parts, desc="likelihood", unit="block", disable=not progress)
    try:
        for index, rows in enumerate(blocks):
            done.append(
                log_likelihood(
                    model.path,
                    model.score,
                    rows,
                    solver=solver,
                    divergence="exact" if exact else Hutchinson(config.probes),
                    rng=streams.block(index).generator(),
                )
            )
    except KeyboardInterrupt:
        if done:
            _save(folder, done, config.bin_width)
        raise
    log_prob, bits = _save(folder, done, config.bin_width)
    plots.histogram(log_prob, quantity="log p(x), nats").savefig(folder / "likelihood.png")
    return {
        "samples": len(x),
        "log_prob": float(log_prob.mean()),
        "log_prob_standard_error": _standard_error(log_prob),
        "bits_per_dim": float(bits.mean()),
        "bits_per_dim_standard_error": _standard_error(bits),
        "bin_width": config.bin_width,
        "nfe": max(part.nfe for part in done),
        "seed": config.seed,
    }


def _save(folder: Path, done: list[Likelihood], bin_width: float) -> tuple[Tensor, Tensor]:
    """Write what is known of each row; return log p in nats and bits per dimension."""
    log_prob = torch.cat([part.log_prob for part in done])
    bits = torch.cat([part.bits_per_dim(bin_width) for part in done])
    error = torch.cat([part.standard_error for part in done])
    save_tensors(
        folder / "likelihood.safetensors",
        {"log_prob": log_prob, "bits_per_dim": bits, "standard_error": error},
        {"kind": "Likelihood", "bin_width": bin_width},
    )
    return log_prob, bits


def _standard_error(values: Tensor) -> float | None:
    """Return the standard error of the mean over rows."""
    return float(values.std() / len(values) ** 0.5) if len(values) > 1 else None
