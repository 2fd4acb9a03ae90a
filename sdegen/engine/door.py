"""The door: what can be known before the first step is checked here, and trusted inside.

Each refusal says what came, what was expected, and what to do.
"""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sdegen.core.brownian import BrownianPath
from sdegen.core.derivatives import check_seen, states_between
from sdegen.core.enclosure import Enclosure
from sdegen.core.evaluation import check_repeatable, refuse_randomness, told_of_graphs, watched
from sdegen.core.noise_structure import check_covariance, check_diagonal, noise_field
from sdegen.core.period import check_period
from sdegen.core.requests import as_state
from sdegen.core.rows import CURE, check_rows, first_line
from sdegen.core.sde import SDE
from sdegen.core.shapes import State, as_times
from sdegen.core.solver import Solver
from sdegen.engine.scales import FEWEST, warn_score
from sdegen.score.composition import warn_collapse

__all__ = [
    "check_blocks",
    "check_boundary",
    "check_brownian",
    "check_bytes",
    "check_derivatives",
    "check_dynamics",
    "check_memory",
    "check_state",
    "check_times",
    "probe",
]

_PROBED_ROWS = 4
_STREAMS = 2**32  # see `Streams.block`
_MEMORY_SHARE = 0.8
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_SLACK = 1e-7  # relative: times that were made in float32 end a rounding beyond the range


def check_state(x0: object, *, name: str = "x0") -> State:
    """Refuses what is no batch of finite float32 or float64 states.

    Args:
        x0: What should be one.
        name: What its caller calls it.

    Raises:
        TypeError: If x0 is no tensor, or not of floats of at least 32 bits.
        ValueError: If it has no batch axis, no rows, or a row that is not finite.
    """
    x0 = as_state(name, x0)
    if x0.dtype in (torch.float16, torch.bfloat16):
        raise TypeError(
            f"{name} has dtype {x0.dtype}, in which √dt · z is lost beside x; keep the state in "
            "float32 or float64 and run the "
            "network under torch.autocast."
        )
    if not x0.is_floating_point():
        raise TypeError(
            f"{name} must be float32 or float64, but has dtype {x0.dtype}; pass "
            f"{name}.to(torch.float32)."
        )
    if x0.ndim < 2:
        raise ValueError(
            f"{name} must have shape (batch, *event), but has shape {tuple(x0.shape)}; "
            "one-dimensional physics is "
            f"(batch, 1): pass {name}[:, None]."
        )
    if x0.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {tuple(x0.shape)}.")
    bad = ~torch.isfinite(x0).flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(
            f"{name} is not finite in {int(bad.sum())} of {len(x0)} rows, the first is row "
            f"{int(bad.nonzero()[0])}."
        )
    return x0


def check_times(times: object) -> Tensor:
    """Turns times into a strictly monotone float64 tensor on the CPU.

    Raises:
        TypeError: If they are not numbers.
        ValueError: If there are fewer than two, one is not finite, or they are not strictly
            monotone; naming the index.
    """
    ts = as_times(times)
    sense = torch.sign(ts[-1] - ts[0])
    wrong = ts.diff() * (sense if sense != 0 else 1) <= 0
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(
            f"times must be strictly monotone, but times[{i}]={float(ts[i]):g} is followed by "
            f"{float(ts[i + 1]):g}; "
            "pass torch.linspace(t_start, t_end, n)."
        )
    return ts


def check_dynamics(sde: object, solver: object, times: Tensor, boundary: Enclosure | None) -> None:
    """Refuses dynamics that do not go with the times, the solver, or the boundary.

    Raises:
        TypeError: If sde or solver are something else.
        ValueError: Saying which of them does not fit.
    """
    if not isinstance(sde, SDE):
        raise TypeError(
            f"sde must be an SDE, but is {type(sde).__name__}; a drift of your own becomes one "
            "with "
            "ItoProcess(drift=f, diffusion=g)."
        )
    kind = solver if isinstance(solver, type) else type(solver)
    if kind.__module__.startswith("sdegen.fokker_planck."):
        raise TypeError(
            f"{kind.__name__} is an integrator of densities, for FokkerPlanck.solve, and "
            "no solver of trajectories: an implicit one is not built. Pass "
            "EulerMaruyama(substeps=…) with steps that resolve the fastest rate."
        )
    if not isinstance(solver, Solver):
        hint = (
            f", such as {solver.__name__}()"
            if isinstance(solver, type) and issubclass(solver, Solver)
            else ""
        )
        raise TypeError(
            f"solver must be a Solver object{hint}, but is {solver!r}; for example "
            "EulerMaruyama(substeps=10)."
        )
    _check_direction(sde, times)
    _check_range(sde, times)
    nodes = solver.nodes(times)
    solver.check(sde, nodes)
    if sde.is_discrete and not bool(
        (nodes == nodes.round()).all() & (nodes.diff().abs() == 1).all()
    ):
        raise ValueError(
            f"{type(sde).__name__} is a Markov chain on integer times: times must be consecutive "
            "integers and substeps 1, "
            f"but the nodes begin {', '.join(f'{float(t):g}' for t in nodes[:3])}; pass "
            "torch.arange(N + 1.0), or its "
            "flip(0) for the inverse chain."
        )
    check_boundary(solver, boundary)
    if boundary is not None:
        check_diagonal(sde, "boundary=")
    inner = sde.denoising
    if inner is not None and inner.eta == 0 and not solver.is_stochastic(sde):
        warn_collapse(inner.score, stacklevel=4)


def check_boundary(solver: Solver, boundary: Enclosure | None) -> None:
    """Refuse a boundary where the solver keeps no state inside one.

    Raises:
        ValueError: Naming a solver that does.
    """
    if boundary is not None and not solver.takes_walls:
        raise ValueError(
            f"{type(solver).__name__} cannot keep a state inside a boundary; use "
            "EulerMaruyama(substeps=…)."
        )


def _check_direction(sde: SDE, times: Tensor) -> None:
    """Refuses noisy dynamics against their sense of time, which would not be their reversal."""
    forwards = bool(times[-1] > times[0])
    if sde.noise == "none" or forwards == (sde.direction == 1):
        return
    name, seen = type(sde).__name__, "increase" if forwards else "decrease"
    if sde.direction == -1:
        raise ValueError(
            f"times {seen}, but {name} is a reverse process, meant for decreasing time: pass "
            "times.flip(0)."
        )
    if sde.is_discrete:
        raise ValueError(
            f"times {seen}, but {name} is a noisy chain meant for increasing time: its inverse is "
            "chain.reverse(score)."
        )
    raise ValueError(
        f"times {seen}, but {name} is a noisy SDE meant for increasing time: running it backwards "
        "is not its time reversal. Build ReverseSDE(sde, score) and run that with decreasing "
        "times."
    )


def _check_range(sde: SDE, times: Tensor) -> None:
    """Refuses times at which the dynamics do not exist, but for a rounding to float32."""
    low, high = sde.time_range
    start, end = sorted((float(times[0]), float(times[-1])))
    if start >= low - _SLACK * abs(low) and end <= high + _SLACK * abs(high):
        return
    why = ""
    if start <= 0 < low:
        why = "; at t = 0 the score does not exist: end at t_min, as sde.time_grid(steps) does"
    raise ValueError(
        f"times must lie in [{low:g}, {high:g}], where {type(sde).__name__} is defined, but span "
        f"{start:g} … {end:g}{why}."
    )


def check_brownian(brownian: object, solver: Solver, times: Tensor) -> None:
    """Refuse a Brownian path that the steps of a run do not meet, or that a solver cannot walk.

    Raises:
        TypeError: If brownian is something else.
        ValueError: Naming the solver, or the time that is missing.
    """
    if brownian is None:
        return
    if not isinstance(brownian, BrownianPath):
        raise TypeError(
            f"brownian must be a BrownianPath(rng, times) or None, but is {brownian!r}."
        )
    solver.check_brownian()
    brownian.places(solver.nodes(times))


def check_trajectories(sde: SDE, trajectories: int) -> None:
    """Refuse another number of trajectories than the parameters of the dynamics have rows.

    Raises:
        ValueError: With both numbers.
    """
    if sde.trajectories not in (None, trajectories):
        raise ValueError(
            f"the parameters of {type(sde).__name__} have {sde.trajectories} rows for "
            f"{trajectories} trajectories; pass one row for each."
        )


def probe(sde: SDE, x0: State, t: Tensor, boundary: Enclosure | None, *, whole: bool) -> bool:
    """Evaluates drift and diffusion before the first step, and refuses what does not fit.

    Args:
        sde: What moves.
        x0: Start, shape (batch, *event).
        t: Start time, 0-d.
        boundary: What x0 must lie inside of.
        whole: Whether all rows are evaluated, as for trajectories that must not be cut.

    Returns:
        Whether drift or diffusion call a network or a score, which is then evaluated once.

    Raises:
        TypeError: If drift or diffusion return no tensor, or one of another dtype or device.
        ValueError: If the drift has another shape, one of them changes its argument or is not
            finite, draws random numbers of its own, or depends on the place of a trajectory in
            the batch; or the diffusion is not of the kind that sde.noise says.
    """
    if boundary is not None:
        boundary.check_inside(x0, t)
    few = _PROBED_ROWS
    if sde.denoising is not None:  # one evaluation, of as many numbers as say something
        few = max(few, -(-FEWEST // max(1, x0[0].numel())))
    rows = x0 if whole else x0[:few]
    full, sde = sde, sde if whole else sde.of_rows(slice(few))
    what, noise_of = noise_field(sde)
    try:
        # the noise first: a reverse drift multiplies by it, and a matrix would fail there
        g, noisy_network = _evaluated(what, noise_of, rows, t)
        if not _broadcasts(g, rows):
            raise ValueError(
                f"{what} returned shape {tuple(g.shape)}, which does not broadcast to x of shape "
                f"{tuple(rows.shape)}; noise is diagonal, a noise matrix is not built. {CURE}"
            )
        f, network = _evaluated("drift", sde.drift, rows, t)
    except RuntimeError as error:
        if len(rows) < len(x0) and _takes_all(full, x0, t):
            raise ValueError(
                f"drift or diffusion takes all {len(x0)} rows of x0, but not {len(rows)} of them "
                f"({first_line(error)}). {CURE}"
            ) from error
        raise
    # a score is asked no more than a network: whoever draws samples counts its evaluations
    network = network or noisy_network or sde.denoising is not None
    if f.shape != rows.shape:
        raise ValueError(
            f"drift returned shape {tuple(f.shape)} for x of shape {tuple(rows.shape)}; no drift "
            "is "
            f"broadcast in silence. {CURE}"
        )
    _check_finite("drift", f, rows, t)
    warn_score(sde, rows, t, f)
    _check_finite(what, g.expand_as(rows), rows, t)
    if type(sde).add_noise is not SDE.add_noise:
        check_covariance(sde, rows, t)
    if boundary is not None:
        _check_periods(sde, rows, t, boundary)
    if sde.noise == "none" and bool((g != 0).any()):
        raise ValueError(
            f"{type(sde).__name__} says noise = 'none', but its diffusion is "
            f"{float(g.abs().max()):g}; "
            "say 'additive' or 'multiplicative'."
        )
    if sde.constant_noise is not None and bool((g != sde.constant_noise).any()):
        raise ValueError(
            f"{type(sde).__name__} says constant_noise = {sde.constant_noise:g}, but its "
            f"diffusion is up to {float(g.abs().max()):g}; say None."
        )
    if sde.noise == "additive" and not torch.equal(g, noise_of(rows + 1, t)):
        raise ValueError(
            f"{type(sde).__name__} says noise = 'additive', but its diffusion is another at x + 1 "
            "than at x; say 'multiplicative'."
        )
    if not network:
        for name, field, value in (("drift", sde.drift, f), (what, noise_of, g)):
            check_repeatable(name, value, field(rows.clone(), t))
        if not whole:
            check_rows(sde, rows, t)
    if network or whole:  # of which rows are not permuted
        _check_matrix(sde, g, rows, t)
    return network


def check_derivatives(sde: SDE, x0: State, t: Tensor, *, differentiable: bool = False) -> None:
    """Refuse derivatives that are not those of their functions, at states near the start.

    Args:
        sde: What moves.
        x0: Start, shape (batch, *event).
        t: Start time, 0-d.
        differentiable: Whether gradients are to flow through drift and diffusion.

    Raises:
        ValueError: Naming the function.
    """
    states = states_between(x0)
    sde.of_rows(torch.arange(len(states), device=x0.device) % len(x0)).check_derivatives(states, t)
    if differentiable:
        sde = sde.of_rows(slice(_PROBED_ROWS))
        check_seen(lambda x: sde.drift(x, t), x0[:_PROBED_ROWS], "drift")
        name, noise_of = noise_field(sde)
        check_seen(lambda x: noise_of(x, t), x0[:_PROBED_ROWS], name)


def _check_periods(sde: SDE, rows: State, t: Tensor, boundary: Enclosure) -> None:
    """Refuses a period that is not the dynamics' own."""
    for coordinates, interval in boundary.parts:
        if interval.wraps:
            low, high = interval.fixed
            check_period(sde, boundary.columns(coordinates), low, high, rows, [t])


def check_blocks(trajectories: int, rows: int) -> None:
    """Refuses more blocks than there are streams of random numbers.

    Args:
        trajectories: How many are asked for.
        rows: Trajectories of a block.

    Raises:
        ValueError: With the most that there can be.
    """
    if trajectories > rows * _STREAMS:
        raise ValueError(
            f"trajectories must be ≤ {rows * _STREAMS:.3g}, the {_STREAMS} blocks of {rows} that "
            f"have random numbers of their own, but is {trajectories:.3g}; run some with another "
            "rng."
        )


def check_memory(x0: State, kept_times: int) -> None:
    """Refuses a path that would not fit, above 80 % of what is free.

    Raises:
        MemoryError: With the sizes and what to do.
    """
    # the states one by one, and the whole that they are joined to
    need = kept_times * x0.numel() * x0.element_size() * 2
    check_bytes(
        need,
        x0.device,
        f"{kept_times} times × {len(x0)} trajectories",
        "keep_path=False, fewer times, or fewer trajectories"
        if kept_times > 1
        else "fewer trajectories",
    )


def check_bytes(need: int, device: torch.device, what: str, instead: str) -> None:
    """Refuses what takes more than 80 % of the memory that is free.

    Args:
        need: Bytes.
        device: Where.
        what: What needs them.
        instead: What to pass to need less.

    Raises:
        MemoryError: With the sizes and what to do.
    """
    free = _free_bytes(device)
    if free is not None and need > _MEMORY_SHARE * free:
        raise MemoryError(
            f"{what} need about {need / 2**30:.3g} GiB, but {free / 2**30:.3g} GiB are free on "
            f"{device}; pass {instead}."
        )


def _check_matrix(sde: SDE, g: Tensor, rows: State, t: Tensor) -> None:
    """Refuse a noise matrix that fits a batch of d trajectories in d dimensions by accident.

    Raises:
        ValueError: If g is (d, d), and is so for one row less.
    """
    n = len(rows)
    if n < 2 or g.shape != (n, n) or rows.shape != (n, n):
        return
    try:
        fewer = sde.diffusion(rows[1:].clone(), t)
    except Exception:
        return  # what takes all rows alone has one number for each of them
    if fewer.shape == g.shape:
        raise ValueError(
            f"diffusion returned shape {tuple(g.shape)} for {n} and for {n - 1} rows; noise is "
            f"diagonal, a noise matrix is not built. {CURE}"
        )


def _takes_all(sde: SDE, x0: State, t: Tensor) -> bool:
    """Return whether drift and diffusion can be evaluated for all rows at once."""
    try:
        return (
            sde.drift(x0.clone(), t).shape == x0.shape
            and noise_field(sde)[1](x0.clone(), t) is not None
        )
    except Exception:
        return False


def _evaluated(
    name: str, field: Callable[[State, Tensor], Tensor], rows: State, t: Tensor
) -> tuple[Tensor, bool]:
    """The field at a copy of the rows, and whether a network took part.

    A tensor of x's dtype and device that left x as it was, without random numbers of its own.
    """
    given = rows.clone()
    try:
        value: object
        with told_of_graphs():
            value, network, moved = watched(lambda: field(given, t), rows.device)
    except Exception as error:
        error.add_note(
            f"in the {name}, called with {len(rows)} rows of x0 before the first step, at "
            f"t = {float(t):g}. {CURE}"
        )
        raise
    if moved is not None:
        refuse_randomness(name, f"{moved} moved while it was evaluated")
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{name} must return a tensor, but returned {type(value).__name__}; use "
            "torch.full_like(x, c) for a number."
        )
    # a 0-d number promotes nothing, and may come from the CPU
    if value.ndim > 0 and value.dtype != rows.dtype:
        raise TypeError(
            f"{name} returned dtype {value.dtype} for x of dtype {rows.dtype}; end it with "
            ".to(x.dtype)."
        )
    if value.ndim > 0 and value.device != rows.device:
        raise TypeError(
            f"{name} returned a tensor on {value.device} for x on {rows.device}; move its "
            "constants with .to(x.device)."
        )
    if not torch.equal(given, rows):
        raise ValueError(
            f"the {name} changed x in place; write x = x + … instead of x += … inside it."
        )
    return value, network


def _broadcasts(g: Tensor, x: State) -> bool:
    """Whether g broadcasts to x's shape and not to a larger one."""
    try:
        g.expand_as(x)
    except RuntimeError:
        return False
    return True


def _check_finite(name: str, value: Tensor, rows: State, t: Tensor) -> None:
    """Refuses a NaN or an infinity at the start, naming the first bad row."""
    bad = ~torch.isfinite(value).flatten(1).all(1)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ValueError(
            f"{name} is not finite at t = {float(t):g}: row {i} of x is "
            f"{rows[i].flatten()[:4].tolist()} and {name} gives "
            f"{value[i].flatten()[:4].tolist()}."
        )


def _free_bytes(device: torch.device) -> int | None:
    """Memory that a run may take, or None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    known = [free for free in (_free_in_system(), _free_in_container()) if free is not None]
    return min(known, default=None)


def _free_in_system() -> int | None:
    """What the machine has free for a new allocation."""
    try:
        fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _free_in_container() -> int | None:
    """What is left of the limit of a container, which the machine's own numbers do not show."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        return limit - int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no container, or "max": no limit
        return None
