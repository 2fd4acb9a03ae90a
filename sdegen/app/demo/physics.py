"""Act 1: a drift of one's own, as trajectories and as a density.

    dX = (X − X³) dt + 0.7 dW,        X_0 ~ N(−1, 0.2²)

A particle in the double well U = x⁴/4 − x²/2 at temperature D = g²/2 = 0.245, started in the left
well. The SDE is given as a plain function, one object for both: `simulate` moves particles,
`FokkerPlanck` solves ∂p/∂t = −∂(f p)/∂x + D ∂²p/∂x² on a grid, from the same law.

**What agreement means.** n exact samples, counted into cells, are not at total variation 0 from
their own law; how far they are on average is known in closed form (`total_variation_floor`).
Particles agree with the density when they are no further from it than that, but for the
fluctuation around the floor and the bias O(Δt) of Euler-Maruyama. That the comparison can fail is
shown by a planted mistake: the density solved with D = g², a factor of two that is easily lost.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy.integrate import trapezoid
from torch import Tensor

from sdegen.core.ito_process import ItoProcess
from sdegen.core.noise import stream
from sdegen.core.shapes import State
from sdegen.core.trajectory import Trajectory
from sdegen.engine.simulate import simulate
from sdegen.fokker_planck.density import Density
from sdegen.fokker_planck.density_path import DensityPath
from sdegen.fokker_planck.discretization.grid import Grid
from sdegen.fokker_planck.solver import FokkerPlanck
from sdegen.metrics import total_variation, total_variation_floor
from sdegen.sde.potentials import DoubleWell
from sdegen.solvers.euler import EulerMaruyama

NOISE = 0.7
START, SPREAD = -1.0, 0.2
_T_END, _FRAMES = 10.0, 100
_LOW, _HIGH, _CELLS = -3.0, 3.0, 200


@dataclass(frozen=True)
class Agreement:
    """Particles beside the density at one time.

    Attributes:
        time: t.
        total_variation: Between the particles' histogram over the grid's cells and the density.
        floor: The total variation that as many exact samples show on average.
        spread: Standard deviation of the total variation of as many exact samples.
        mistaken: Between the particles and the density solved with D = g², the planted mistake.
    """

    time: float
    total_variation: float
    floor: float
    spread: float
    mistaken: float

    @property
    def ratio(self) -> float:
        """Return total variation in units of the floor."""
        return self.total_variation / self.floor


@dataclass(frozen=True)
class Relaxation:
    """What Act 1 found.

    Attributes:
        path: The trajectories, shape (T, n, 1).
        density: The Fokker-Planck density at the same times.
        agreements: Particles beside the density, one entry for each time asked.
        stationary: The stationary density, solved for and not waited for.
        boltzmann: e^{−U/D}/Z at the same nodes, shape (nodes,).
        energy: U at the nodes, shape (nodes,).
        boltzmann_error: L1 distance of the two, ∫|p − e^{−U/D}/Z| dx.
        step: Δt of Euler-Maruyama.
        simulation_seconds: What the trajectories took.
        density_seconds: What the density took.
    """

    path: Trajectory
    density: DensityPath
    agreements: tuple[Agreement, ...]
    stationary: Density
    boltzmann: Tensor
    energy: Tensor
    boltzmann_error: float
    step: float
    simulation_seconds: float
    density_seconds: float


def relax(
    trajectories: int,
    *,
    substeps: int,
    times: Sequence[float] = (1.0, 5.0, 10.0),
    seed: int = 0,
    progress: bool = False,
) -> Relaxation:
    """Let particles and their density relax side by side.

    Args:
        trajectories: How many.
        substeps: Steps of Euler-Maruyama in 0.1 units of time.
        times: Times of the comparison, multiples of 0.1 up to 10.
        seed: Seed of the start and of the noise.
        progress: Whether a progress bar is shown.

    Returns:
        Both, and how far they are apart.
    """
    sde = ItoProcess(drift=_force, diffusion=NOISE)
    ts = torch.linspace(0, _T_END, _FRAMES + 1, dtype=torch.float64)
    x0 = START + SPREAD * stream(seed, "demo start").normal((trajectories, 1))
    started = time.perf_counter()
    path = simulate(sde, x0, ts, solver=EulerMaruyama(substeps), rng=seed, progress=progress)
    simulated = time.perf_counter()

    grid = Grid(_LOW, _HIGH, _CELLS)
    start = grid.gaussian(mean=START, std=SPREAD)
    solver = FokkerPlanck(sde, grid)
    density = solver.solve(start, ts)
    stationary = solver.stationary()
    solved = time.perf_counter()

    # g → √2 g is D = g²/2 → g²
    wrong = ItoProcess(drift=_force, diffusion=NOISE * 2**0.5)
    mistaken = FokkerPlanck(wrong, grid).solve(start, ts)
    agreements = []
    for t in times:
        k = int((ts - t).abs().argmin())
        distance = total_variation(path.states[k], density.at(k))
        floor = total_variation_floor(density.at(k), trajectories)
        wrongly = total_variation(path.states[k], mistaken.at(k))
        spread = floor_spread(density.at(k), trajectories)
        agreements.append(Agreement(t, distance, floor, spread, wrongly))
    well, x = DoubleWell(quartic=0.25, quadratic=0.5), grid.nodes[:, None]
    boltzmann = well.log_prob(x, temperature=NOISE**2 / 2).exp()
    difference = (stationary.p - boltzmann).abs()
    return Relaxation(
        path=path,
        density=density,
        agreements=tuple(agreements),
        stationary=stationary,
        boltzmann=boltzmann,
        energy=well.energy(x),
        boltzmann_error=float(trapezoid(difference.numpy(), grid.nodes.numpy())),
        step=_T_END / _FRAMES / substeps,
        simulation_seconds=simulated - started,
        density_seconds=solved - simulated,
    )


def floor_spread(density: Density, n: int) -> float:
    """Return the standard deviation of the total variation of n exact samples.

    It is ½ Σ |c_i/n − m_i| over cells of mass m_i, whose terms are absolute values of numbers that
    are nearly normal, of variance v_i = m_i (1 − m_i)/n, and nearly independent:

        std² ≈ ¼ Σ v_i (1 − 2/π)

    Args:
        density: The density, whose cells are counted.
        n: Number of samples.
    """
    m = density.cell_masses
    return 0.5 * float(((1 - 2 / math.pi) * (m * (1 - m)).sum() / n).sqrt())


def _force(x: State) -> State:
    """Return the drift, a plain function: f(x) = x − x³."""
    return x - x**3
