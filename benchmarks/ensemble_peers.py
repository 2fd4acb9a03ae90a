"""Peers of the ensemble benchmark: what else takes Euler-Maruyama steps from Python.

`peers(problem, n, dtype)` gives {name: run(steps)}, those that are installed and can do it. Each
run takes the steps from x = 0 with dt = 1/1000 and keeps the last state alone. Each is written as
its own documentation has it; what is compiled has been compiled before it is timed.
"""

import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

DT = 1e-3


@dataclass(frozen=True)
class Problem:
    """dX = f(X) dt + g(X) dW in d dimensions.

    drift, diffusion: On tensors; the diffusion may be a number.
    drift_of: The drift with the array module of a peer.
    diffusion_of: The diffusion likewise.
    scalar: The same on numbers, (drift, diffusion) for numba, where it acts number by number.
    """

    name: str
    dimension: int
    drift: Callable
    diffusion: float | Callable
    drift_of: Callable
    diffusion_of: Callable
    scalar: tuple[Callable, Callable] | None = None
    method: str = "euler"


def peers(problem, n, dtype):
    """The peers that are installed, as {name: run(steps)}."""
    made = {
        "torchsde, its own defaults": _torchsde,
        "torchsde, times in float64": _torchsde_double,
        "torch loop": _torch_loop,
        "torch loop in place": _torch_in_place,
        "diffrax, VirtualBrownianTree": _diffrax_tree,
        "diffrax, UnsafeBrownianPath": _diffrax_unsafe,
        "diffrax, UnsafeBrownianPath, vmap": _diffrax_vmap,
        "jax.lax.scan": _jax_scan,
        "numba, parallel": _numba,
    }
    runs = {name: make(problem, n, dtype) for name, make in made.items()}
    return {name: run for name, run in runs.items() if run is not None}


def _has(*names):
    return all(importlib.util.find_spec(name) for name in names)


def _diffused(problem, x):
    g = problem.diffusion
    return g(x) if callable(g) else g


def _torch_loop(problem, n, dtype):
    f, generator = problem.drift, torch.Generator().manual_seed(0)

    def euler(x, z):
        return x + DT * f(x) + _diffused(problem, x) * DT**0.5 * z

    def heun(x, z):
        ahead = euler(x, z)
        return x + DT / 2 * (f(x) + f(ahead)) + _diffused(problem, x) * DT**0.5 * z

    step = heun if problem.method == "heun" else euler

    def run(steps):
        x = torch.zeros(n, problem.dimension, dtype=dtype)
        with torch.no_grad():
            for _ in range(steps):
                x = step(x, torch.randn(x.shape, dtype=dtype, generator=generator))
        return x

    return run


def _torch_in_place(problem, n, dtype):
    if problem.method != "euler" or callable(problem.diffusion):
        return None
    generator, scale = torch.Generator().manual_seed(0), problem.diffusion * DT**0.5

    def run(steps):
        x = torch.zeros(n, problem.dimension, dtype=dtype)
        z = torch.empty_like(x)
        with torch.no_grad():
            for _ in range(steps):
                x.add_(problem.drift(x), alpha=DT).add_(
                    z.normal_(generator=generator), alpha=scale
                )
        return x

    return run


def _torchsde(problem, n, dtype, *, kind=torch.float32):
    """As its own documentation has it: times in torch's default dtype, noise of its own choice.

    In float32 the steps do not land on the last time, and its tree of the past is refined to what
    is left: that costs 10 ms a step where it happens (google-research/torchsde#109). It does for
    100 steps to t = 1, and does not for every number of steps; in float64 it never does.
    """
    import torchsde

    class Theirs(torch.nn.Module):
        noise_type = "diagonal"
        sde_type = "stratonovich" if problem.method == "heun" else "ito"

        def f(self, t, x):
            return problem.drift(x)

        def g(self, t, x):
            g = _diffused(problem, x)
            return g if callable(problem.diffusion) else torch.full_like(x, g)

    def run(steps):
        x = torch.zeros(n, problem.dimension, dtype=dtype)
        ts = torch.tensor([0.0, 1.0], dtype=kind)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torchsde.sdeint(Theirs(), x, ts, method=problem.method, dt=1 / steps)[-1]

    return run


def _torchsde_double(problem, n, dtype):
    return _torchsde(problem, n, dtype, kind=torch.float64)


def _jax(dtype):
    """jax, in double precision where that is asked for."""
    import jax

    jax.config.update("jax_enable_x64", dtype == torch.float64)
    return jax


def _jax_scan(problem, n, dtype):
    if not _has("jax"):
        return None
    jax = _jax(dtype)
    jnp = jax.numpy
    f, g = problem.drift_of(jnp), problem.diffusion_of(jnp)
    kind = jnp.float64 if dtype == torch.float64 else jnp.float32

    def step(x, key):
        z = jax.random.normal(key, x.shape, kind)
        noise = g(x) * DT**0.5 * z
        if problem.method == "euler":
            return x + DT * f(x) + noise, None
        ahead = x + DT * f(x) + noise
        return x + DT / 2 * (f(x) + f(ahead)) + noise, None

    @jax.jit
    def scan(x, keys):
        return jax.lax.scan(step, x, keys)[0]

    def run(steps):
        keys = jax.random.split(jax.random.PRNGKey(0), steps)
        return scan(jnp.zeros((n, problem.dimension), kind), keys).block_until_ready()

    return run


def _diffrax(problem, n, dtype, path, *, each=False):
    """One path for all trajectories; or, as its own documentation has it, one for each by vmap."""
    if not _has("jax", "diffrax"):
        return None
    jax = _jax(dtype)
    import diffrax

    jnp = jax.numpy
    kind = jnp.float64 if dtype == torch.float64 else jnp.float32
    f, g = problem.drift_of(jnp), problem.diffusion_of(jnp)
    solver = diffrax.Heun() if problem.method == "heun" else diffrax.Euler()

    def solve(x, t1, key):
        shape = jax.ShapeDtypeStruct(x.shape, kind)
        brownian = path(diffrax, t1, shape, key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: f(y)),
            diffrax.ControlTerm(lambda t, y, args: diffrax_diagonal(y * 0 + g(y)), brownian),
        )
        return diffrax.diffeqsolve(
            terms, solver, 0.0, t1, DT, x,
            saveat=diffrax.SaveAt(t1=True), max_steps=None,
            stepsize_controller=diffrax.ConstantStepSize(),
            adjoint=diffrax.ForwardMode(),
        ).ys[0]  # fmt: skip

    def diffrax_diagonal(diagonal):
        import lineax

        return lineax.DiagonalLinearOperator(diagonal)

    solved = jax.jit(jax.vmap(solve, in_axes=(0, None, 0)) if each else solve)

    def run(steps):
        x, key = jnp.zeros((n, problem.dimension), kind), jax.random.PRNGKey(0)
        return solved(x, steps * DT, jax.random.split(key, n) if each else key).block_until_ready()

    return run


def _diffrax_tree(problem, n, dtype):
    return _diffrax(
        problem, n, dtype,
        lambda d, t1, shape, key: d.VirtualBrownianTree(0.0, t1, DT / 2, shape, key),
    )  # fmt: skip


def _diffrax_unsafe(problem, n, dtype):
    return _diffrax(problem, n, dtype, lambda d, t1, shape, key: d.UnsafeBrownianPath(shape, key))


def _diffrax_vmap(problem, n, dtype):
    return _diffrax(
        problem, n, dtype, lambda d, t1, shape, key: d.UnsafeBrownianPath(shape, key), each=True
    )  # fmt: skip


def _numba(problem, n, dtype):
    if problem.scalar is None or problem.method != "euler" or not _has("numba"):
        return None
    import numba

    f, g = (numba.njit(function) for function in problem.scalar)
    kind = np.float64 if dtype == torch.float64 else np.float32
    dt, root = kind(DT), kind(DT**0.5)

    @numba.njit(parallel=True, fastmath=True)
    def loop(x, steps):
        for i in numba.prange(x.size):
            y = x[i]
            for _ in range(steps):
                y = kind(y + dt * f(y) + root * g(y) * kind(np.random.normal()))  # noqa: NPY002 (numba knows no other)
            x[i] = y

    def run(steps):
        x = np.zeros(n * problem.dimension, kind)
        loop(x, steps)
        return x

    return run
