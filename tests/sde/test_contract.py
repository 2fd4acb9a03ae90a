"""The contract of an SDE, over the list of all (`sdes.py`), and that of a Gaussian path."""

import copy
import functools
import inspect
import json
import math

import pytest
import torch
from sdes import LINEAR, PATHS, SDES, TIMED

import sdegen as sg
from sdegen.core.fingerprint import to_spec
from sdegen.core.noise import Given
from sdegen.core.scores import CallCounter

F64 = torch.float64
ZERO = torch.tensor(0.0, dtype=F64)
X = torch.tensor([[0.3, -0.6], [-1.2, 0.4], [0.9, 1.1]], dtype=F64)
V = torch.tensor([[1.0, -2.0], [0.5, 0.3], [-1.0, 0.7]], dtype=F64)

every_sde = pytest.mark.parametrize("sde", SDES.values(), ids=SDES.keys())
every_path = pytest.mark.parametrize("sde", PATHS.values(), ids=PATHS.keys())


def states_of(sde):
    """States and directions: (x, v) in a phase space, or of three numbers."""
    if sde.phase_space:
        return X[..., None], V[..., None]
    if isinstance(sde, sg.GeneralizedLangevin | sg.ActiveBrownian):
        return (torch.cat([each, each.flip(1)[:, :1]], 1) for each in (X, V))
    return X, V


def time_of(sde):
    """A time at which the dynamics are defined; of a chain an integer."""
    if sde.is_discrete:
        return torch.tensor(4.0, dtype=F64)
    low, high = sde.score_range
    low, high = max(low, 0.0), min(high, 1.0)
    return torch.tensor(low + 0.37 * (high - low), dtype=F64)


def test_every_public_sde_is_in_the_list():
    public = (getattr(sg, name) for name in dir(sg))
    kinds = {k for k in public if inspect.isclass(k) and issubclass(k, sg.SDE)}
    known = {type(sde) for sde in SDES.values()}
    assert {k for k in kinds if not inspect.isabstract(k)} - known == set()
    paths = {k for k in kinds if issubclass(k, sg.GaussianPath) and not inspect.isabstract(k)}
    assert paths - {type(path) for path in PATHS.values()} == set()


@every_sde
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_drift_and_noise_follow_the_state(sde, dtype):
    """Shape and dtype, one row as many, and values that single precision keeps to its rounding."""
    X, V = states_of(sde)
    t, x, v = time_of(sde), X.to(dtype), V.to(dtype)
    f, c = sde.drift(x, t).detach(), sde.covariance_times(x, t, v)
    assert (f.shape, f.dtype, c.shape) == (x.shape, dtype, x.shape)
    one = sde.drift(x[1:2], t).detach()
    torch.testing.assert_close(one, f[1:2], rtol=1e-5, atol=1e-6)
    for low, high in ((f, sde.drift(X, t).detach()), (c, sde.covariance_times(X, t, V))):
        torch.testing.assert_close(low.double(), high, rtol=2e-5, atol=2e-5)
    if sde.noise_structure == "diagonal":
        g = sde.diffusion(x, t)
        assert torch.equal(g * g * v, c)
        constant = sde.constant_noise
        assert constant is None or float(g) == pytest.approx(constant, rel=1e-7)
    elif sde.noise_structure == "channels":
        G = sde.diffusion(x, t)
        assert G.shape[0] in (1, len(x))
        assert G.shape[1:] == (2, sde.channels)
        G = G.expand(len(x), -1, -1)
        torch.testing.assert_close(torch.einsum("bik,bjk,bj->bi", G, G, v), c)
        for k in range(sde.channels):
            assert torch.equal(sde.diffusion_column(x, t, k).expand_as(x), G[..., k])
    else:
        with pytest.raises(ValueError, match="needs diagonal noise"):
            sde.diffusion(x, t)
    assert (sde.noise == "none") == (not bool(c.any()))


@every_sde
def test_the_covariance_is_that_of_the_noise_that_is_added(sde):
    """C v = Σ_k g e_k (g e_k)ᵀ v with the columns that add_noise makes of unit normals."""
    X, V = states_of(sde)
    t, expected = time_of(sde), torch.zeros_like(X)
    for k in range(sde.channels or X.shape[1]):
        unit = torch.zeros_like(X) if sde.channels is None else X.new_zeros(3, sde.channels)
        unit[:, k] = 1.0
        column = sde.add_noise(torch.zeros_like(X), X, t, 0.5, Given(unit)) / 0.5
        expected += column * (column * V).sum(1, keepdim=True)
    torch.testing.assert_close(sde.covariance_times(X, t, V), expected, rtol=1e-12, atol=1e-14)
    scaled = sde.covariance_times(X, t, V, 0.3)
    torch.testing.assert_close(scaled, 0.3 * expected, rtol=1e-12, atol=1e-14)


@every_sde
def test_the_divergence_of_the_covariance(sde):
    """∇·(g gᵀ) against central differences of g gᵀ e_j, which are exact for a polynomial g²."""
    X, _ = states_of(sde)
    t, h, expected = time_of(sde), 1e-4, torch.zeros_like(X)
    for j in range(X.shape[1]):
        unit = torch.zeros_like(X)
        unit[:, j] = 1.0
        up, down = (sde.covariance_times(X + s * h * unit, t, unit) for s in (1, -1))
        expected += (up - down) / (2 * h)
    found = sde.covariance_divergence(X, t).detach()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert sde.noise != "additive" or not bool(found.any())


def chain_moments(sde, start, end, steps):
    """Mean and covariance of Euler's chain from X[0], by the drift and covariance themselves."""
    mean, cov, eye = X[0].clone(), torch.zeros(2, 2, dtype=F64), torch.eye(2, dtype=F64)
    dt = (end - start) / steps
    for i in range(steps):
        t = torch.tensor(start + i * dt, dtype=F64)
        at = torch.cat([torch.zeros(1, 2, dtype=F64), eye])
        f = sde.drift(at, t)
        step = eye + dt * (f[1:] - f[0]).T
        mean = step @ mean + dt * f[0]
        cov = step @ cov @ step.T + dt * sde.covariance_times(eye, t, eye)
    return torch.cat([mean, cov.flatten()])


def law(sde, start, end):
    """The same by the transition that the SDE declares."""
    t, s = (torch.tensor(time, dtype=F64) for time in (start, end))
    told = sde.transition(t, s)
    cov = told.covariance
    cov = cov if cov.ndim else cov * torch.eye(2, dtype=F64)
    return torch.cat([told.mean(X[:1])[0], cov.flatten()])


@pytest.mark.parametrize("name", LINEAR | TIMED | PATHS)
def test_the_transition_is_the_limit_of_short_steps(name):
    """Errors of Euler's chain halve with its steps, and extrapolate to the declared law."""
    sde, stiff = SDES[name], name == "LinearSDE, stiff"
    high = sde.t_max if isinstance(sde, sg.GaussianPath) else (0.02 if stiff else 1.0)
    start, end = 0.3 * high, 0.5 * high
    exact = law(sde, start, end)
    rough, fine, finest = (chain_moments(sde, start, end, n) for n in (100, 200, 400))
    scale = exact.abs().max()
    assert float((2 * finest - fine - exact).abs().max()) < 1e-3 * float(scale)
    gaps = [float((one - exact).abs().max()) for one in (rough, fine, finest)]
    assert gaps[0] < 1e-12 * scale or 1.8 < gaps[1] / gaps[2] < 2.2
    # two transitions, one after the other, are one
    middle = 0.4 * high
    first, second = sde.transition(start, middle), sde.transition(middle, end)
    both = sde.transition(start, end)
    if both.matrix.ndim == 0:
        cov = second.matrix.square() * first.covariance + second.covariance
        matrix = second.matrix * first.matrix
    else:
        cov = second.matrix @ first.covariance @ second.matrix.T + second.covariance
        matrix = second.matrix @ first.matrix
    size = float(both.covariance.abs().max())
    torch.testing.assert_close(cov, both.covariance, rtol=1e-10, atol=1e-12 * size)
    torch.testing.assert_close(matrix, both.matrix, rtol=1e-12, atol=1e-14)


def written(sde):
    return json.dumps(to_spec(sde), sort_keys=True)


@functools.cache
def all_written():
    return [(sde, written(sde)) for sde in SDES.values()]


@every_sde
def test_its_description_is_that_of_its_copy(sde):
    """What a run's fingerprint and a store hold of it: JSON, the same for the same dynamics."""
    assert written(sde) == written(copy.copy(sde))
    others = [description for other, description in all_written() if other is not sde]
    assert len(others) == len(SDES) - 1
    assert written(sde) not in others


@every_sde
def test_what_costs_is_counted_and_rows_keep_their_dynamics(sde):
    X, _ = states_of(sde)
    counter, t = CallCounter(), time_of(sde)
    counted = sde.with_counter(counter)
    torch.testing.assert_close(counted.drift(X, t), sde.drift(X, t), rtol=0, atol=0)
    assert counter.calls == 1
    some = sde.of_rows(slice(1, 3))
    torch.testing.assert_close(some.drift(X[1:3], t).detach(), sde.drift(X, t)[1:3].detach())


@every_sde
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_reversal_is_the_formula_or_refused_by_name(sde, eta):
    def score(x, t):
        return -x - 0.1 * x**3

    def build():
        return sg.ReverseSDE(sde, score, eta)

    if sde.jumps is not None:
        with pytest.raises(ValueError, match="ReverseSDE reads drift and diffusion alone"):
            build()
    elif sde.noise_structure == "general":
        with pytest.raises(ValueError, match="ReverseSDE needs diagonal noise or channels"):
            build()
    elif sde.noise == "none" or sde.is_discrete or sde.direction == -1:
        with pytest.raises(ValueError, match=r"noise-free|Markov chain|is a reverse"):
            build()
    else:
        (X, V), t, reverse = states_of(sde), time_of(sde), build()
        c = sde.covariance_times(X, t, score(X, t)) + sde.covariance_divergence(X, t)
        expected = sde.drift(X, t) - 0.5 * (1 + eta**2) * c
        torch.testing.assert_close(reverse.drift(X, t), expected, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(
            reverse.covariance_times(X, t, V), eta**2 * sde.covariance_times(X, t, V)
        )
        inner = reverse.denoising
        assert (inner.eta, inner.score, inner.kernel is None) == (eta, score, sde.kernel is None)


@pytest.mark.parametrize("name", LINEAR)
def test_the_stationary_law_of_a_linear_sde(name):
    """A C + C Aᵀ = B Bᵀ and A m = c; or no such law, told with the mode that does not decay."""
    sde = LINEAR[name]
    if name == "LinearSDE, free":
        for ask in (sde.stationary_mean, sde.stationary_covariance):
            with pytest.raises(ValueError, match="has no stationary law: an eigenvalue of A"):
                ask()
        return
    cov, eye = sde.stationary_covariance(), torch.eye(2, dtype=F64)
    square = sde.covariance_times(eye, ZERO, eye)
    size = float(sde.A.abs().max() * cov.abs().max())
    residual = sde.A @ cov + cov @ sde.A.T - square
    assert float(residual.abs().max()) < 1e-13 * max(size, 1.0)
    torch.testing.assert_close(sde.A @ sde.stationary_mean(), sde.c, rtol=1e-12, atol=1e-13)
    far = sde.transition(0.0, 200.0)
    torch.testing.assert_close(far.covariance, cov, rtol=1e-12, atol=1e-13)


def test_exact_paths_have_the_law_of_the_transition():
    """Mean and covariance at two times, and between them, within 4.4 standard errors."""
    n, sde = 40_000, LINEAR["LinearSDE, three noises"]
    path = sde.sample(X[:1].expand(n, 2), [0.0, 0.4, 3.0], rng=0)
    assert path.states.shape == (3, n, 2)
    assert not bool(path.nonfinite.any())
    again = sde.sample(X[:1].expand(n, 2), [0.0, 0.4, 3.0], rng=path.seed)
    assert torch.equal(again.states, path.states)
    for k, s in ((1, 0.4), (2, 3.0)):
        told = sde.transition(0.0, s)
        cov = torch.cov(path.states[k].T)
        spread = torch.outer(told.covariance.diag(), told.covariance.diag())
        error = ((spread + told.covariance.square()) / n).sqrt()
        assert bool(((cov - told.covariance).abs() < 4.4 * error).all())
        gap = path.states[k].mean(0) - told.mean(X[:1])[0]
        assert bool((gap.abs() < 4.4 * (told.covariance.diag() / n).sqrt()).all())
    # of one number for all coordinates, and a state of any shape
    images = PATHS["VP, linear"].sample(torch.ones(4, 1, 3, 3, dtype=F64), [0.0, 0.5], rng=0)
    assert images.final.shape == (4, 1, 3, 3)


def test_what_is_no_linear_sde_is_refused():
    for given, kind, said in (
        (([[1.0, 2.0]], 1.0), ValueError, r"A must be a square matrix, but has shape \(1, 2\)"),
        (("A", 1.0), TypeError, "A must be a square matrix of numbers"),
        (([[1.0]], [1.0, 2.0]), ValueError, r"B must have 1 rows as A has"),
        (([[1.0]], 1.0, [1.0, 2.0]), ValueError, r"c must be a number or have shape \(1,\)"),
        (([[math.nan]], 1.0), ValueError, "A must be finite"),
    ):
        with pytest.raises(kind, match=said):
            sg.LinearSDE(*given)
    sde = LINEAR["LinearSDE, scalar"]
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 2\), as A has 2 rows"):
        sde.drift(torch.zeros(3, 1, dtype=F64), ZERO)
    for one in (sde, PATHS["EDM"]):
        with pytest.raises(ValueError, match="s must not be before t"):
            one.transition(0.5, 0.25)
    with pytest.raises(ValueError, match="times must increase"):
        sde.sample(X, [1.0, 0.5], rng=0)
    with pytest.raises(ValueError, match="no stationary law; at t_max it is near"):
        PATHS["EDM"].stationary_covariance()


@pytest.mark.parametrize("name", ["alpha", "sigma"])
def test_a_path_by_its_old_name_is_refused(name):
    """LinearSDE of version 0.1 is GaussianPath: a class made from it fails as it is made."""
    body = {name: lambda self, t: t}
    with pytest.raises(TypeError, match="derive from GaussianPath"):
        type("Mine", (sg.LinearSDE,), body)
    assert issubclass(type("Mine", (sg.GaussianPath,), body), sg.LinearSDE)
    assert issubclass(type("Mine", (sg.VP,), body), sg.GaussianPath)


@every_path
def test_the_signal_to_noise_ratio_falls_and_is_inverted(sde):
    """log σ/α grows with t, and `time_of_log_nsr` finds the t of it, to rounding of the times."""
    t = torch.linspace(sde.t_min, sde.t_max, 203, dtype=F64)
    ratio = sde.kernel.log_ratio(t)
    assert bool((ratio.diff() > 0).all())
    found = sde.kernel.time_of_log_nsr(ratio, sde.t_min, sde.t_max)
    torch.testing.assert_close(sde.kernel.log_ratio(found), ratio, rtol=1e-12, atol=1e-12)


@every_path
@pytest.mark.parametrize("grid", ["uniform", "quadratic", "power", "log_snr", "karras", "angle"])
def test_grids_of_times_go_down_from_end_to_end(sde, grid):
    times = getattr(sg.timesteps, grid)(sde, 12)
    assert (times.shape, times.dtype) == ((13,), F64)
    assert bool((times.diff() < 0).all())
    assert (float(times[0]), float(times[-1])) == (sde.t_max, sde.t_min)


@every_path
def test_a_model_of_it_is_saved_and_loaded(sde, tmp_path):
    """The same class, kernel and score; what a file holds is enough to make the path again."""
    model = sg.ScoreModel(sg.MLP(dim=2, width=4, depth=1, rng=0), sde)
    model.save(tmp_path / "model.safetensors")
    loaded = sg.ScoreModel.load(tmp_path / "model.safetensors")
    t = torch.linspace(sde.t_min, sde.t_max, 5, dtype=F64)
    assert type(loaded.sde) is type(sde)
    for name in ("alpha", "sigma", "drift_rate", "diffusion_rate"):
        assert torch.equal(getattr(loaded.sde, name)(t), getattr(sde, name)(t))
    with torch.no_grad():
        x = X.float()
        assert torch.equal(loaded.score(x, t[2]), model.score(x, t[2]))
