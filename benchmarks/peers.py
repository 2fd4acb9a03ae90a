"""Peers: the samplers of diffusers, k-diffusion and azula, all given the same start, grid and end.

A peer carries x at times[0] to times[-1] along a grid, asking `Counted` for what its library calls
a model's output. What is done so that none is handicapped:

- The score is exact at any real t, and the tables of a scheduler (σ/α, α̅) are set in float64 to
  the very nodes of the grid: no table of 1,000 times is interpolated, no time is rounded. Where a
  scheduler casts the state to float32 it is given float64 instead.
- Nothing is clipped or thresholded.
- All end at t_min, where σ > 0, and are compared with the exact map to t_min. A last step to
  σ = 0, which some libraries append, is left out: there is nothing to denoise at the target.
- Where a scheduler lowers its order in the last steps, or does not, both are run.
- Each is run on every grid that any of the three libraries offers (see `sampling.GRIDS`), on
  noisy and trained scores on the two that win, and a two-evaluation method takes as many steps as
  the budget pays for.
- A network reaches them as `sdegen.adaptors` gives it: a diffusers network with a noise level for
  each node, D(x; σ), an azula denoiser (`Adapted`).

Orders, solver types, predictions and correctors are in the lists below. Left out are schedulers
that are one of these under another name (EDM's, CogVideoX's), those for distilled models or other
paths, sample_dpm_adaptive, which has no number of evaluations of its own, and PNDM's Runge-Kutta
start, which asks between the nodes of a table.
"""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

import sdegen as sg
from benchmarks import bare
from sdegen.diffusion.samplers.adams_coefficients import Coefficients

__all__ = [
    "Adapted",
    "Counted",
    "Peer",
    "coefficients",
    "deterministic",
    "missing",
    "run",
    "stochastic",
]


class Counted:
    """A score under a VP-SDE in the words of all libraries, counting its evaluations.

    Args:
        sde: VP with a linear β, whose σ/α can be turned back into t in closed form.
        score: ∇ log p_t(x).
    """

    def __init__(self, sde, score):
        self.sde, self._score, self.calls = sde, score, 0

    def score(self, x, t):
        self.calls += 1
        return self._score(x, t)

    def eps(self, x, t):
        return -self.sde.sigma(t) * self.score(x, t)

    def x0(self, x, t):
        return (x - self.sde.sigma(t) * self.eps(x, t)) / self.sde.alpha(t)

    def v(self, x, t):
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return (self.eps(x, t) - sigma * x) / alpha  # v = α ε − σ x0, with α² + σ² = 1

    def denoise(self, y, ratio):
        """D(y; σ/α) at y = x/α, as k-diffusion asks."""
        t = self.time(ratio.flatten()[0])
        return self.x0(y * self.sde.alpha(t), t)

    def azula(self):
        """An azula denoiser, and its times by ours."""
        denoise, model = importlib.import_module("azula.denoise"), self

        class Exact(denoise.Denoiser):
            def __init__(self):
                super().__init__()
                self.schedule = lambda t: (model.sde.alpha(t), model.sde.sigma(t))

            def forward(self, x_t, t, **_):
                return denoise.DiracPosterior(model.x0(x_t, t))

        return Exact(), lambda times: times

    def begin(self, times):
        """Before a run along these times."""
        self.calls = 0

    def ratio(self, t):
        """σ/α."""
        return self.sde.sigma(t) / self.sde.alpha(t)

    def time(self, ratio):
        """The t at which σ/α has this value: B(t) = log(1 + r²), a quadratic in t."""
        low, slope = self.sde.beta.beta_min, self.sde.beta.beta_max - self.sde.beta.beta_min
        b = torch.log1p(ratio * ratio)
        # the root without cancellation
        return (2 * b / (low + torch.sqrt(low * low + 2 * slope * b))).to(torch.float64)


class Adapted(Counted):
    """A `ScoreModel` as each library is given it by `sdegen.adaptors`; the network counts.

    Args:
        model: The model, on VP with a linear β.
        shape: Of one sample.
    """

    def __init__(self, model, shape):
        super().__init__(model.sde, model.score)
        self._model, self._shape, self._unet = model, tuple(shape), None
        self._denoiser = sg.to_denoiser(model)
        model.network.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1

    def begin(self, times):
        """A noise level of the scheduler for each time of the run."""
        super().begin(times)
        if _installed("diffusers"):
            self._unet, _ = sg.to_diffusers(self._model, self._shape, times=times)

    def eps(self, x, t):
        unet = self._unet
        if unet is None:
            return self._model.eps(x, t)
        here = (unet.times == t).nonzero()
        if len(here):
            k = here[0, 0].to(torch.float64)
        else:  # between two of its levels, as KDPM2's middle is
            level = self.sde.kernel.log_ratio(t.to(torch.float64))
            left = (torch.searchsorted(unet.levels, level) - 1).clamp(0, len(unet.levels) - 2)
            low, high = unet.levels[left], unet.levels[left + 1]
            k = (left + (level - low) / (high - low)).clamp(0, len(unet.levels) - 1)
        return unet(x, k).sample

    def denoise(self, y, ratio):
        return self._denoiser(y, ratio)

    def azula(self):
        low, high = self.sde.t_min, self.sde.t_max
        return sg.to_azula(self._model), lambda times: (times - low) / (high - low)


@dataclass(frozen=True)
class Peer:
    """A sampler of another library.

    Attributes:
        library: Where it is from.
        name: The library's name for it, and its settings.
        run: run(model, x, times, draw): the state at times[-1]. draw() gives normals.
        steps: How many steps a number of evaluations pays for.
        own_grid: Whether it lays its own nodes between the two ends.
    """

    library: str
    name: str
    run: Callable
    steps: Callable[[int], int] = lambda evaluations: evaluations
    own_grid: bool = False

    @property
    def label(self):
        return f"{self.library} {self.name}"


class _Seen:
    """torch as a library's module shall see it: some names are others."""

    def __init__(self, **others):
        self._others = others

    def __getattr__(self, name):
        return self._others[name] if name in self._others else getattr(torch, name)


@contextlib.contextmanager
def _seeing(module, **others):
    """A module whose `torch` has other names for a while."""
    before, module.torch = module.torch, _Seen(**others)
    try:
        yield
    finally:
        module.torch = before


def missing():
    """Names of the libraries that are not installed."""
    return [name for name in ("diffusers", "k_diffusion", "azula") if not _installed(name)]


def _installed(name):
    return importlib.util.find_spec(name) is not None


# ------------------------------------------------------------------------------------- k-diffusion


def _k(function, **settings):
    """y = x/α on its grid of σ/α; the denoiser is D(y, σ/α)."""

    def run(model, x, times, draw):
        alpha = model.sde.alpha(times)
        ratios = model.ratio(times)
        denoiser = model.denoise
        words = {"disable": True, **settings}
        if "noise_sampler" in words:
            words["noise_sampler"] = lambda *_: draw()
        sample = getattr(bare.k_diffusion().sampling, function)
        if function == "sample_dpm_fast":
            ends = (ratios[-1], ratios[0], len(times) - 1)
            return alpha[-1] * sample(denoiser, x / alpha[0], *ends, **words)
        return alpha[-1] * sample(denoiser, x / alpha[0], ratios, **words)

    return run


def _k_flows():
    yield Peer("k-diffusion", "sample_euler", _k("sample_euler"))
    yield Peer("k-diffusion", "sample_heun", _k("sample_heun"), _half)
    yield Peer("k-diffusion", "sample_dpm_2", _k("sample_dpm_2"), _half)
    for order in (2, 3, 4):
        yield Peer("k-diffusion", f"sample_lms, order {order}", _k("sample_lms", order=order))
    yield Peer("k-diffusion", "sample_dpmpp_2m", _k("sample_dpmpp_2m"))
    for name in ("sample_dpmpp_2s_ancestral", "sample_dpmpp_sde"):
        yield Peer("k-diffusion", f"{name}, η = 0", _k(name, eta=0.0, noise_sampler=None), _half)
    for kind in ("midpoint", "heun"):
        run = _k("sample_dpmpp_2m_sde", eta=0.0, solver_type=kind, noise_sampler=None)
        yield Peer("k-diffusion", f"sample_dpmpp_2m_sde {kind}, η = 0", run)
    run = _k("sample_dpmpp_3m_sde", eta=0.0, noise_sampler=None)
    yield Peer("k-diffusion", "sample_dpmpp_3m_sde, η = 0", run)
    yield Peer("k-diffusion", "sample_dpm_fast", _k("sample_dpm_fast"), own_grid=True)


def _k_noisy():
    for name, steps in (
        ("sample_euler_ancestral", _one),
        ("sample_dpm_2_ancestral", _half),
        ("sample_dpmpp_2s_ancestral", _half),
        ("sample_dpmpp_sde", _half),
        ("sample_dpmpp_3m_sde", _one),
    ):
        yield Peer("k-diffusion", name, _k(name, noise_sampler=None), steps)
    for kind in ("midpoint", "heun"):
        run = _k("sample_dpmpp_2m_sde", solver_type=kind, noise_sampler=None)
        yield Peer("k-diffusion", f"sample_dpmpp_2m_sde {kind}", run)


# --------------------------------------------------------------------------------------- diffusers


def _scheduler(name, **config):
    diffusers = importlib.import_module("diffusers")
    return getattr(diffusers, name)(**config)


def _module(scheduler):
    return importlib.import_module(type(scheduler).__module__)


def _by_sigmas(name, noisy=False, **config):
    """Schedulers of x that step along a table of σ/α, one evaluation a step."""

    def run(model, x, times, draw):
        steps = len(times) - 1
        scheduler = _scheduler(name, **config)
        scheduler.set_timesteps(steps)
        scheduler.sigmas = model.ratio(times)
        scheduler.timesteps = torch.arange(steps)
        scheduler.num_inference_steps = steps
        if hasattr(scheduler, "order_list"):
            scheduler.order_list = scheduler.get_order_list(steps)
        scheduler.set_begin_index(0)
        words = {"variance_noise": draw} if noisy else {}
        with _seeing(_module(scheduler), float32=torch.float64):
            for i in range(steps):
                output = model.eps(x, times[i])
                noise = {key: value() for key, value in words.items()}
                x = scheduler.step(output, scheduler.timesteps[i], x, **noise).prev_sample
        return x

    return run


def _two_a_step(name):
    """Heun and DPM-2 in y = x/α, two evaluations a step, the last one too."""

    def run(model, x, times, draw):
        steps, ratios = len(times) - 1, model.ratio(times)
        scheduler = _scheduler(name)
        scheduler.set_timesteps(steps)
        scheduler.sigmas = torch.cat([ratios[:1], ratios[1:].repeat_interleave(2), ratios[-1:]])
        at = scheduler.sigmas[:-2].clone()
        if name.startswith("KDPM2"):
            middle = (0.5 * (ratios[1:].log() + ratios[:-1].log())).exp()
            # sigmas_interpol[k] is read at even k + 1, as the middle that step k/2 asks for
            table = torch.cat([middle[:1], middle.repeat_interleave(2), middle[-1:]])
            scheduler.sigmas_interpol = table
            at = torch.stack([ratios[:-1], middle], 1).flatten()
        else:
            at = torch.stack([ratios[:-1], ratios[1:]], 1).flatten()
        scheduler.timesteps = torch.arange(2 * steps)
        scheduler.set_begin_index(0)
        y = x / model.sde.alpha(times[0])
        with _seeing(_module(scheduler), float32=torch.float64):
            for k in range(2 * steps):
                t = model.time(at[k])
                output = model.eps(y * model.sde.alpha(t), t)
                y = scheduler.step(output, scheduler.timesteps[k], y).prev_sample
        return model.sde.alpha(times[-1]) * y

    return run


def _in_y(name, noisy=False, **words):
    """Schedulers of y = x/α, one evaluation a step: Euler, LMS."""

    def run(model, x, times, draw):
        steps = len(times) - 1
        scheduler = _scheduler(name)
        scheduler.set_timesteps(steps)
        scheduler.sigmas = model.ratio(times)
        scheduler.timesteps = torch.arange(steps, dtype=torch.float64)  # integers are refused
        scheduler.is_scale_input_called = True
        scheduler.set_begin_index(0)
        y = x / model.sde.alpha(times[0])
        others = {"float32": torch.float64}
        if noisy:
            others["randn"] = lambda *_, **__: draw()
        module = _module(scheduler)
        draws = {"randn_tensor": module.randn_tensor} if hasattr(module, "randn_tensor") else {}
        if noisy:
            module.randn_tensor = lambda *_, **__: draw()
        try:
            with _seeing(module, **others):
                for i in range(steps):
                    output = model.eps(model.sde.alpha(times[i]) * y, times[i])
                    y = scheduler.step(output, scheduler.timesteps[i], y, **words).prev_sample
        finally:
            for key, value in draws.items():
                setattr(module, key, value)
        return model.sde.alpha(times[-1]) * y

    return run


def _by_alpha_bars(name, noisy=False, **config):
    """DDIM, DDPM and PNDM: a table of α̅ with one row for each node, all of them taken."""

    def run(model, x, times, draw):
        steps = len(times) - 1
        scheduler = _scheduler(name, num_train_timesteps=steps, **config)
        bars = model.sde.alpha(times).square().flip(0)  # the last node first
        scheduler.alphas_cumprod = bars[1:]
        scheduler.final_alpha_cumprod = scheduler.one = bars[0]
        scheduler.alphas = bars[1:] / bars[:-1]
        scheduler.betas = 1 - scheduler.alphas
        scheduler.set_timesteps(steps)
        nodes = times.flip(0)[1:]
        if name.startswith("PNDM"):
            # "skip_prk_steps" asks for the second node twice
            order = list(range(steps - 1, -1, -1))
            asked = order[:1] + order[1:2] + order[1:] if steps > 1 else order
            scheduler.timesteps = torch.tensor(asked)
            scheduler.plms_timesteps = scheduler.timesteps
            scheduler.counter = 0
        module = _module(scheduler)
        drawn = getattr(module, "randn_tensor", None)
        if noisy:
            module.randn_tensor = lambda *_, **__: draw()
        try:
            for k in scheduler.timesteps:
                output = model.eps(x, nodes[k])
                x = scheduler.step(output, k, x).prev_sample
        finally:
            if drawn is not None:
                module.randn_tensor = drawn
        return x

    return run


def _ipndm(model, x, times, draw):
    """IPNDM takes v, and its own tables of α and σ are called alphas and betas."""
    steps = len(times) - 1
    scheduler = _scheduler("IPNDMScheduler")
    scheduler.set_timesteps(steps)
    scheduler.alphas, scheduler.betas = model.sde.alpha(times), model.sde.sigma(times)
    scheduler.timesteps = torch.arange(steps)
    scheduler.set_begin_index(0)
    for i in range(steps):
        x = scheduler.step(model.v(x, times[i]), scheduler.timesteps[i], x).prev_sample
    return x


def _ipndm_equal_angles(model, x, times, draw):
    """On the grid that its coefficients are meant for, equal steps of arctan(σ/α)."""
    angles = torch.atan(model.ratio(times[[0, -1]]))
    steps = torch.linspace(0, 1, len(times), dtype=torch.float64)
    nodes = model.time(torch.tan(angles[0] + steps * (angles[1] - angles[0])))
    nodes[0], nodes[-1] = times[0], times[-1]
    return _ipndm(model, x, nodes, draw)


_AS_IT_ENDS = {"final_sigmas_type": "sigma_min"}


def _diffusers_flows():
    def peer(name, run, steps=_one):
        return Peer("diffusers", name, run, steps)

    yield peer("DDIM", _by_alpha_bars("DDIMScheduler", clip_sample=False, set_alpha_to_one=False))
    plms = _by_alpha_bars("PNDMScheduler", skip_prk_steps=True)
    yield peer("PNDM (PLMS)", plms, lambda n: max(n - 1, 1))
    yield peer("IPNDM", _ipndm)
    yield Peer("diffusers", "IPNDM, equal angles", _ipndm_equal_angles, own_grid=True)
    yield peer("EulerDiscrete", _in_y("EulerDiscreteScheduler"))
    for order in (2, 3, 4):
        yield peer(f"LMSDiscrete, order {order}", _in_y("LMSDiscreteScheduler", order=order))
    yield peer("HeunDiscrete", _two_a_step("HeunDiscreteScheduler"), _half)
    yield peer("KDPM2Discrete", _two_a_step("KDPM2DiscreteScheduler"), _half)
    for lower in (True, False):
        end = ", lower order at the end" if lower else ""
        for kind in ("dpmsolver++", "dpmsolver"):
            for order, rule in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
                if order == 1 and lower:
                    continue
                words = {
                    "algorithm_type": kind, "solver_order": order, "solver_type": rule,
                    "lower_order_final": lower, **_AS_IT_ENDS,
                }  # fmt: skip
                told = f"{kind} {order}" + (f" {rule}" if order == 2 else "") + end
                yield peer(
                    f"DPMSolverMultistep {told}",
                    _by_sigmas("DPMSolverMultistepScheduler", **words),
                )
        for order in (2, 3):
            words = {"solver_order": order, "lower_order_final": lower}
            yield peer(f"DEIS {order}{end}", _by_sigmas("DEISMultistepScheduler", **words))
        for order in (1, 2, 3, 4):
            for kind in ("bh1", "bh2"):
                for of in (True, False):
                    words = {
                        "solver_order": order, "solver_type": kind, "predict_x0": of,
                        "lower_order_final": lower, **_AS_IT_ENDS,
                    }  # fmt: skip
                    told = f"{order} {kind} {'x0' if of else 'ε'}{end}"
                    yield peer(f"UniPC {told}", _by_sigmas("UniPCMultistepScheduler", **words))
        for order in (2, 3):
            words = {
                "predictor_order": order, "corrector_order": order,
                "tau_func": lambda t: 0.0, "lower_order_final": lower,
            }  # fmt: skip
            yield peer(f"SASolver {order}, τ = 0{end}", _by_sigmas("SASolverScheduler", **words))
    for kind in ("dpmsolver++", "dpmsolver"):
        for order, rule in ((2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun")):
            words = {
                "algorithm_type": kind, "solver_order": order, "solver_type": rule,
                "lower_order_final": True, **_AS_IT_ENDS,
            }  # fmt: skip
            run = _by_sigmas("DPMSolverSinglestepScheduler", **words)
            yield peer(f"DPMSolverSinglestep {kind} {order} {rule}", run)


def _diffusers_noisy():
    yield Peer("diffusers", "DDPM", _by_alpha_bars("DDPMScheduler", noisy=True, clip_sample=False))
    yield Peer(
        "diffusers", "EulerAncestralDiscrete", _in_y("EulerAncestralDiscreteScheduler", noisy=True)
    )
    for order, rule in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
        words = {
            "algorithm_type": "sde-dpmsolver++", "solver_order": order, "solver_type": rule,
            "lower_order_final": False, **_AS_IT_ENDS,
        }  # fmt: skip
        run = _by_sigmas("DPMSolverMultistepScheduler", noisy=True, **words)
        told = f"{order}" + (f" {rule}" if order == 2 else "")
        yield Peer("diffusers", f"DPMSolverMultistep sde-dpmsolver++ {told}", run)


# ------------------------------------------------------------------------------------------- azula


def _azula(name, **words):
    def run(model, x, times, draw):
        sample = importlib.import_module("azula.sample")
        denoiser, clock = model.azula()
        kind, nodes = getattr(sample, name), clock(times)
        ours = type(name, (kind,), {"timesteps": property(lambda self: nodes)})
        with _seeing(sample, randn_like=lambda *_: draw()):
            return ours(denoiser, silent=True, **words)(x)

    return run


def _azula_flows():
    for name, steps in (("EulerSampler", _one), ("DDIMSampler", _one), ("HeunSampler", _half)):
        yield Peer("azula", name, _azula(name), steps)
    for name in ("zABSampler", "vABSampler", "zEABSampler", "xEABSampler", "REABSampler"):
        for order in (2, 3, 4):
            yield Peer("azula", f"{name}, order {order}", _azula(name, order=order))


def _azula_noisy():
    yield Peer("azula", "DDPMSampler", _azula("DDPMSampler"))
    yield Peer("azula", "DDIMSampler, η = 1", _azula("DDIMSampler", eta=1.0))
    yield Peer("azula", "ItoSampler", _azula("ItoSampler"))
    yield Peer("azula", "PCSampler", _azula("PCSampler"), _half)


# ---------------------------------------------------------------------------------------------


def _one(evaluations):
    return evaluations


def _half(evaluations):
    return evaluations // 2


def _all(of_diffusers, of_k, of_azula):
    here = set(missing())
    found = []
    for library, peers in (
        ("diffusers", of_diffusers),
        ("k_diffusion", of_k),
        ("azula", of_azula),
    ):
        if library not in here:
            found += peers()
    return found


def deterministic():
    """Every noise-free sampler of the libraries that are installed."""
    return _all(_diffusers_flows, _k_flows, _azula_flows)


def stochastic():
    """Every noisy one, at η = 1."""
    return _all(_diffusers_noisy, _k_noisy, _azula_noisy)


def run(peer, model, x, times, *, seed=0):
    """One run of a peer: the state at times[-1] and the evaluations it asked for."""
    generator = torch.Generator().manual_seed(seed)
    model.begin(times)

    def draw():
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        final = peer.run(model, x, times, draw)
    return final, model.calls


class _Impulses(Counted):
    """Answers that are 1 in one row each, and the states at which they were asked for."""

    def __init__(self, sde):
        super().__init__(sde, None)
        self.seen = []

    def score(self, x, t):
        self.seen.append(x)
        answer = torch.zeros_like(x)
        answer[self.calls] = 1.0
        self.calls += 1
        return answer


def coefficients(peer, sde, times):
    """A, P, Q and S of a peer's steps, if they are linear and remember at most one state.

    A run of N steps is linear in x_0, its N scores and its N draws. With each of them 1 in a row
    of its own and 0 in all others, the states of all rows tell the coefficients, by least squares:

        x_{i+1} = A x_i + P x_{i−1} + Q_0 score_i + Q_1 score_{i−1} + S z_i

    Args:
        peer: One that evaluates once a step.
        sde: VP with a linear β.
        times: Nodes, shape (N + 1,).

    Returns:
        `Coefficients`, or None where a residual shows that it is something else.
    """
    n, model = len(times) - 1, _Impulses(sde)
    if peer.steps(2) != 2 or peer.own_grid:
        return None
    start, drawn = torch.zeros(2 * n + 1, 1, dtype=torch.float64), []
    start[-1] = 1.0

    def draw():
        z = torch.zeros_like(start)
        z[n + len(drawn)] = 1.0
        drawn.append(z)
        return z

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        final = peer.run(model, start, times, draw)
    if len(model.seen) != n or len(drawn) > n:
        return None
    states, unit = torch.cat([*model.seen, final], 1), torch.eye(2 * n + 1, dtype=torch.float64)
    rows = []
    for i in range(n):
        known = [states[:, i], unit[:, i], unit[:, n + i]]
        if i:
            known += [states[:, i - 1], unit[:, i - 1]]
        known = torch.stack(known, 1)
        row = torch.linalg.lstsq(known, states[:, i + 1], driver="gelsd").solution
        if float((known @ row - states[:, i + 1]).abs().max()) > 1e-9 * float(states.abs().max()):
            return None
        rows.append(torch.cat([row, row.new_zeros(5 - len(row))]))
    decay, own, noise, before, last = torch.stack(rows).unbind(1)
    width = 1 if float(torch.stack([before, last]).abs().max()) < 1e-9 else 2
    return Coefficients(
        decay,
        torch.stack([torch.zeros_like(before), before], 1)[:, :width],
        torch.stack([own, last], 1)[:, :width],
        noise,
    )
