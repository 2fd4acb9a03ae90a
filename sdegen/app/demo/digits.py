"""Act 2: digits out of noise, by every route, each judged by its distance to digits never seen.

The data are 1,797 handwritten digits of 8 × 8 pixels, real scans, dequantised. Half of them is for
learning, a part of it set aside for decisions (when training stops, which route is taken); the
other half is looked at only to judge. An MLP learns the score of a VP-SDE by denoising score
matching, and this one score is sampled by

    DDPM ancestral             the chain that the SDE is on a grid
    reverse SDE                by Euler-Maruyama here, and by torchsde
    probability flow           by Heun and DDIM here, and by torchdiffeq's dopri5

**Distances and their floor.** Two sets of real digits are not at distance 0 from each other. The
distance between the learning half and the test half is the floor, what a perfect generator would
show. The energy distance is the V-statistic, of as many samples as there are test images.

**Not by memory.** A generator that repeats its training images would pass for perfect. So the mean
distance of its samples to the nearest training image is held against that of the test images.

**Likelihood.** −log₂ p of test images per pixel, along the probability flow with Hutchinson's
divergence, beside what the Gaussian with the mean and covariance of the training images needs.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from sdegen import metrics
from sdegen.app.demo.routes import Route, ancestral, ddim, dopri5, heun, reverse_sde, torch_sde
from sdegen.core.noise import stream
from sdegen.core.shapes import State
from sdegen.core.trajectory import Trajectory
from sdegen.data import Digits, digits, redequantise
from sdegen.diffusion.gaussian_path import VP
from sdegen.diffusion.mixtures import GaussianMixture
from sdegen.diffusion.schedules import LinearBeta
from sdegen.likelihood.divergence import Hutchinson
from sdegen.likelihood.flow import log_likelihood
from sdegen.score.config import TrainConfig
from sdegen.score.model import ScoreModel
from sdegen.score.networks import MLP
from sdegen.score.parameterization import VPrediction
from sdegen.score.training import train
from sdegen.solvers.torch_diffeq import TorchDiffEq
from sdegen.training.result import TrainResult

_HALVINGS = 10  # of real digits, to see how far a floor scatters


@dataclass(frozen=True)
class Effort:
    """How much work the act puts in.

    Attributes:
        width: Units of a hidden layer of the MLP.
        training: How the score is learned.
        routes: What is sampled by.
        seeds: Sets of samples drawn by each route.
        test_images: Test images to judge on and numbers of samples; None takes all.
        likelihoods: Test images whose likelihood is computed.
    """

    width: int
    training: TrainConfig
    routes: tuple[Route, ...]
    seeds: int
    test_images: int | None
    likelihoods: int


_BEST = TrainConfig(weighting="simple", keep="best")
_LONG = replace(_BEST, steps=2_000, batch_size=256, learning_rate=2e-3, validate_every=100)
_SHORT = replace(_BEST, steps=60, batch_size=32, warmup=10, validate_every=30, ema_decay=0.9)
FULL = Effort(
    width=512,
    # a network of this size knows 718 images by heart after a minute
    training=replace(_LONG, weight_decay=1.0),
    routes=(
        *map(ancestral, (25, 100)),
        *map(reverse_sde, (25, 100)),
        *map(torch_sde, (8, 17)),
        *map(heun, (6, 25)),
        *map(ddim, (10, 50)),
        *map(dopri5, (1e-2, 1e-3)),
    ),
    seeds=5,
    test_images=None,
    likelihoods=400,
)

QUICK = Effort(
    width=32,
    training=_SHORT,
    routes=(ancestral(5), reverse_sde(5), torch_sde(3), heun(3), ddim(5), dopri5(1e-1)),
    seeds=2,
    test_images=100,
    likelihoods=16,
)


@dataclass(frozen=True)
class Run:
    """One route, run with each seed; distances are means over the sets of samples.

    Attributes:
        route: Which.
        nfe: Evaluations of the score that a sample took.
        seconds: Wall time of one set of samples.
        sliced_wasserstein: Sliced W2 to the test images.
        energy: Energy distance to the test images.
        validation_energy: Energy distance to the validation images, by which a route is chosen.
        sliced_wasserstein_error: Standard error of that mean over the sets, likewise the others.
        energy_error: Of the energy distance.
        validation_energy_error: Of that to the validation images.
    """

    route: Route
    nfe: int
    seconds: float
    sliced_wasserstein: float
    energy: float
    validation_energy: float
    sliced_wasserstein_error: float
    energy_error: float
    validation_energy_error: float


@dataclass(frozen=True)
class Likelihoods:
    """Bits per dimension of test images.

    Attributes:
        mean: Mean over the images.
        standard_error: Of that mean, probes included.
        gaussian: Mean that a Gaussian with the training data's mean and covariance needs.
        gaussian_error: Standard error of that mean.
        saved_error: Standard error of the mean difference of the two, image by image.
        images: How many.
        nfe: Evaluations of the score.
        seconds: Wall time.
    """

    mean: float
    standard_error: float
    gaussian: float
    gaussian_error: float
    saved_error: float
    images: int
    nfe: int
    seconds: float


@dataclass(frozen=True)
class Generation:
    """What Act 2 found.

    Attributes:
        data: The three sets of images.
        parameters: Numbers in the network.
        training: Its losses.
        training_seconds: Wall time of the training.
        floor_energy: Energy distance of the learning half to the test half.
        floor_sliced_wasserstein: Sliced W2 of the same.
        halvings: Energy distance and sliced W2 of random halves of the same digits, one row each:
            how far the floor would be off with another split.
        runs: All routes.
        chosen: The one that was nearest to the validation images.
        energies: Energy distance of the chosen route to the test images, one for each seed.
        nearests: Mean distance of its samples to the nearest training image, one for each seed.
        nearest_test: Mean distance of the test images to the nearest training image.
        samples: Samples of the chosen route, first seed.
        models_of: The training images that are nearest to the first samples.
        strip: Noise becoming digits, by the reverse SDE.
        likelihoods: Bits per dimension.
    """

    data: Digits
    parameters: int
    training: TrainResult
    training_seconds: float
    floor_energy: float
    floor_sliced_wasserstein: float
    halvings: Tensor
    runs: tuple[Run, ...]
    chosen: Run
    energies: tuple[float, ...]
    nearests: tuple[float, ...]
    nearest_test: float
    samples: Tensor
    models_of: Tensor
    strip: Trajectory
    likelihoods: Likelihoods

    @property
    def energy(self) -> float:
        """Return the mean energy distance of the chosen route, over the seeds."""
        return sum(self.energies) / len(self.energies)

    @property
    def nearest(self) -> float:
        """Return the mean distance of its samples to the nearest training image over the seeds."""
        return sum(self.nearests) / len(self.nearests)


def generate(effort: Effort = FULL, *, seed: int = 0, progress: bool = False) -> Generation:
    """Learn the digits, draw new ones by every route, and measure how good they are.

    Args:
        effort: How much work is put in.
        seed: Seed of the split, the weights, the training and the samples.
        progress: Whether progress bars are shown.

    Returns:
        All that was measured, and the images.
    """
    images = digits(rng=seed)
    test = images.test[: effort.test_images]
    learning = torch.cat([images.train, images.validation])[: len(test)]
    model = ScoreModel(
        MLP(64, width=effort.width, rng=seed), VP(LinearBeta(0.1, 20.0)), VPrediction()
    )
    started = time.perf_counter()
    training = train(
        model, images.train, effort.training, rng=seed, validation=images.validation,
        augment=redequantise, progress=progress,
    )  # fmt: skip
    training_seconds = time.perf_counter() - started

    runs: list[Run] = []
    drawn: dict[Route, list[State]] = {}
    count = len(effort.routes) * effort.seeds
    with tqdm(total=count, disable=not progress, unit="set", desc="sample") as bar:
        for route in effort.routes:
            bar.set_postfix_str(f"{route.name}, {route.setting}")
            drawn[route] = []
            started = time.perf_counter()
            for k in range(effort.seeds):
                path = route.draw(model, len(test), seed + k)
                drawn[route].append(path.final)
                bar.update()
            seconds = (time.perf_counter() - started) / effort.seeds
            runs.append(_judged(route, path.nfe, seconds, drawn[route], test, images.validation))
    chosen = min(runs, key=lambda run: run.validation_energy)
    sets = drawn[chosen.route]

    return Generation(
        data=images,
        parameters=sum(p.numel() for p in model.parameters()),
        training=training,
        training_seconds=training_seconds,
        floor_energy=metrics.energy_distance(learning, test),
        floor_sliced_wasserstein=metrics.sliced_wasserstein(learning, test),
        halvings=_halvings(torch.cat([learning, test]), seed),
        runs=tuple(runs),
        chosen=chosen,
        energies=tuple(metrics.energy_distance(samples, test) for samples in sets),
        nearests=tuple(metrics.nearest_distance(samples, images.train) for samples in sets),
        nearest_test=metrics.nearest_distance(test, images.train),
        samples=sets[0],
        models_of=_nearest_of(sets[0][:64], images.train),
        strip=reverse_sde(200).draw(model, 8, seed, keep_path=True),
        likelihoods=_likelihoods(model, images, effort.likelihoods, seed, progress),
    )


def _judged(
    route: Route, nfe: int, seconds: float, sets: list[Tensor], test: Tensor, validation: Tensor
) -> Run:
    """Measure the distances of a route's sets of samples, each the mean over the sets."""

    def mean(distance: Callable[[Tensor, Tensor], float], to: Tensor) -> tuple[float, float]:
        return mean_and_error([distance(samples, to) for samples in sets])

    sliced, sliced_error = mean(metrics.sliced_wasserstein, test)
    energy, energy_error = mean(metrics.energy_distance, test)
    chosen_by, its_error = mean(metrics.energy_distance, validation)
    return Run(
        route, nfe, seconds, sliced, energy, chosen_by, sliced_error, energy_error, its_error
    )


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of repeats, and its standard error: their deviation over √repeats.

    >>> mean, error = mean_and_error([1.0, 2.0, 3.0])
    >>> mean, round(error, 6)  # 1/√3
    (2.0, 0.57735)
    """
    n, mean = len(values), math.fsum(values) / len(values)
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def _halvings(real: State, seed: int) -> Tensor:
    """Return the distances of random halves of real images, shape (halvings, 2)."""
    found = []
    for k in range(_HALVINGS):
        order = stream(seed, f"demo halving {k}").normal((len(real),)).argsort()
        halves = real[order].tensor_split(2)
        found.append([metrics.energy_distance(*halves), metrics.sliced_wasserstein(*halves)])
    return torch.tensor(found, dtype=torch.float64)


def _nearest_of(samples: Tensor, reference: Tensor) -> Tensor:
    """Return the nearest reference image of each sample."""
    return reference[torch.cdist(samples.flatten(1), reference.flatten(1)).argmin(1)]


def _likelihoods(
    model: ScoreModel, images: Digits, count: int, seed: int, progress: bool
) -> Likelihoods:
    """Compute bits per dimension of the first test images, by the flow and by a Gaussian."""
    some = images.test[:count]
    started = time.perf_counter()
    likelihood = log_likelihood(
        model.path, model.score, some, divergence=Hutchinson(probes=1), rng=seed,
        solver=TorchDiffEq("dopri5", rtol=1e-4, atol=1e-4),
    )  # fmt: skip
    seconds = time.perf_counter() - started
    bits = likelihood.bits_per_dim(images.bin_width)
    gaussian = _gaussian_bits(images, some)
    return Likelihoods(
        mean=float(bits.mean()),
        standard_error=float(bits.std()) / count**0.5,
        gaussian=float(gaussian.mean()),
        gaussian_error=float(gaussian.std()) / count**0.5,
        saved_error=float((gaussian - bits).std()) / count**0.5,
        images=count,
        nfe=likelihood.nfe,
        seconds=seconds,
    )


def _gaussian_bits(images: Digits, some: State) -> Tensor:
    """Compute bits per dimension under N(mean, covariance) of the training images."""
    known = images.train.flatten(1).double()
    law = GaussianMixture([1.0], known.mean(0)[None], covariances=known.T.cov()[None])
    flat = some.flatten(1).double()
    return metrics.bits_per_dim(law.log_prob(flat), flat.shape[1], bin_width=images.bin_width)
