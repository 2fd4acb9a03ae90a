"""Peers of the ensemble benchmarks: what else takes Euler-Maruyama steps from Python.

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

    drift, diffusion: On tensors; the diffusion may be a number. With channels it is a matrix G,
        shape (d, channels), or a function that returns one for each trajectory.
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
    channels: int | None = None


def peers(problem, n, dtype, only=None):
    """The peers that are installed, or those of them that are named, as {name: run(steps)}."""
    made = {
        "torchsde, its own defaults": _torchsde,
        "torchsde, times in float64": _torchsde_double,
        "torch loop": _torch_loop,
        "torch loop in place": _torch_in_place,
        "torch loop, torch.compile": _torch_compiled,
        "diffrax, VirtualBrownianTree": _diffrax_tree,
        "diffrax, UnsafeBrownianPath": _diffrax_unsafe,
        "diffrax, UnsafeBrownianPath, vmap": _diffrax_vmap,
        "jax.lax.scan": _jax_scan,
        "numba, parallel": _numba,
    }
    asked = [name for name in made if only is None or name in only]
    runs = {name: made[name](problem, n, dtype) for name in asked}
    return {name: run for name, run in runs.items() if run is not None}


def _has(*names):
    return all(importlib.util.find_spec(name) for name in names)


def _diffused(problem, x):
    g = problem.diffusion
    return g(x) if callable(g) else g


def _draw_shape(problem, n):
    return n, problem.channels or problem.dimension


def _pushed(problem, x, z):
    """√dt g z, of tensors."""
    g = _diffused(problem, x)
    if problem.channels is None:
        return g * DT**0.5 * z
    return z @ (DT**0.5 * g.T) if g.ndim == 2 else DT**0.5 * (g @ z[..., None])[..., 0]


def _torch_loop(problem, n, dtype):
    f, generator = problem.drift, torch.Generator().manual_seed(0)

    def euler(x, z):
        return x + DT * f(x) + _pushed(problem, x, z)

    def heun(x, z):
        ahead = euler(x, z)
        return x + DT / 2 * (f(x) + f(ahead)) + _pushed(problem, x, z)

    step, shape = heun if problem.method == "heun" else euler, _draw_shape(problem, n)

    def run(steps):
        x = torch.zeros(n, problem.dimension, dtype=dtype)
        with torch.no_grad():
            for _ in range(steps):
                x = step(x, torch.randn(shape, dtype=dtype, generator=generator))
        return x

    return run


def _torch_in_place(problem, n, dtype):
    if problem.method != "euler" or (callable(problem.diffusion) and problem.channels is None):
        return None
    f, g, root = problem.drift, problem.diffusion, DT**0.5
    generator, matrix = torch.Generator().manual_seed(0), None
    if isinstance(g, torch.Tensor):
        matrix = (root * g.T).contiguous()

    def step(x, z):
        if problem.channels is None:
            x.add_(f(x), alpha=DT).add_(z, alpha=root * g)
        elif matrix is not None:
            x.add_(f(x), alpha=DT).addmm_(z, matrix)
        else:
            G = g(x)
            x.add_(f(x), alpha=DT).unsqueeze(-1).baddbmm_(G, z.unsqueeze(-1), alpha=root)

    def run(steps):
        x = torch.zeros(n, problem.dimension, dtype=dtype)
        z = x.new_empty(_draw_shape(problem, n))
        with torch.no_grad():
            for _ in range(steps):
                step(x, z.normal_(generator=generator))
        return x

    return run


def _torch_compiled(problem, n, dtype):
    """The step of the loop by torch.compile; only of channels, where a step has more to fuse."""
    if problem.channels is None:
        return None
    generator, shape = torch.Generator().manual_seed(0), _draw_shape(problem, n)
    step = torch.compile(lambda x, z: x + DT * problem.drift(x) + _pushed(problem, x, z))

    def run(steps):
        x = torch.zeros(n, problem.dimension, dtype=dtype)
        with torch.no_grad():
            for _ in range(steps):
                x = step(x, torch.randn(shape, dtype=dtype, generator=generator))
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
        noise_type = "diagonal" if problem.channels is None else "general"
        sde_type = "stratonovich" if problem.method == "heun" else "ito"

        def f(self, t, x):
            return problem.drift(x)

        def g(self, t, x):
            g = _diffused(problem, x)
            if callable(problem.diffusion):
                return g
            return torch.full_like(x, g) if problem.channels is None else g.expand(n, *g.shape)

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


def _jax_times(problem, g, z):
    """g z; of a matrix for each trajectory as a sum: XLA fuses that, and no product."""
    if problem.channels is None:
        return g * z
    return z @ g.T if g.ndim == 2 else (g * z[..., None, :]).sum(-1)


def _jax_scan(problem, n, dtype):
    if not _has("jax"):
        return None
    jax = _jax(dtype)
    jnp = jax.numpy
    f, g = problem.drift_of(jnp), problem.diffusion_of(jnp)
    kind = jnp.float64 if dtype == torch.float64 else jnp.float32

    def step(x, key):
        z = jax.random.normal(key, _draw_shape(problem, n), kind)
        noise = DT**0.5 * _jax_times(problem, g(x), z)
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


def _lineax(problem, g, y, shape):
    """The operator of diffrax: a diagonal, a matrix, or a matrix for each trajectory."""
    import lineax

    if problem.channels is None:
        return lineax.DiagonalLinearOperator(y * 0 + g)
    if y.ndim == 1:
        return lineax.MatrixLinearOperator(g)
    return lineax.FunctionLinearOperator(lambda z: _jax_times(problem, g, z), shape)


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
        draw = x.shape if problem.channels is None else (*x.shape[:-1], problem.channels)
        shape = jax.ShapeDtypeStruct(draw, kind)
        brownian = path(diffrax, t1, shape, key)
        terms = diffrax.MultiTerm(
            diffrax.ODETerm(lambda t, y, args: f(y)),
            diffrax.ControlTerm(lambda t, y, args: _lineax(problem, g(y), y, shape), brownian),
        )
        return diffrax.diffeqsolve(
            terms, solver, 0.0, t1, DT, x,
            saveat=diffrax.SaveAt(t1=True), max_steps=None,
            stepsize_controller=diffrax.ConstantStepSize(),
            adjoint=diffrax.ForwardMode(),
        ).ys[0]  # fmt: skip

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
