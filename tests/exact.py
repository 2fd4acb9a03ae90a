"""Problems with their answers, and ways to know what a chain does without drawing from it."""

import math

import numpy as np
import torch
from scipy import optimize, special, stats
from torch import nn

import sdegen as sg
from sdegen.core.noise import Given, Noise, Normals, Stream, stream
from sdegen.core.shapes import expand
from sdegen.core.solver import integrate
from sdegen.engine.blocks import solve

SQRT_2 = math.sqrt(2)


class Replay(Stream):
    """A stream that hands out given normals, in order.

    Args:
        draws: One tensor for each draw, of the shape that is asked for.
    """

    def __init__(self, draws):
        super().__init__(0)
        self._draws = iter(draws)

    def normal(self, shape, *, dtype=None, device="cpu"):
        z = next(self._draws)
        assert tuple(z.shape) == tuple(shape)
        return z.to(device=device, dtype=dtype)

    def normals(self, shape, *, dtype, device="cpu"):
        return ReplayedNormals(self, shape, dtype, torch.device(device))


class ReplayedNormals(Normals):
    """The same, asked for step by step."""

    def each(self, *, recycled=False):
        while True:
            yield self._source.normal(self._shape, dtype=self._dtype, device=self._device)


class ReplayedNoise(Noise):
    """Noise that hands out given normals, in order; with zeros in place of none at all."""

    def __init__(self, draws):
        draws = iter(draws)
        self.normal = lambda: next(draws)


def solved(solver, sde, x, times, **options):
    """What became of a block of states, by a solver."""
    nodes = solver.nodes(times)
    stride = (len(nodes) - 1) // (len(times) - 1)
    return solve(sde, solver, x, nodes, stride=stride, **options)


def walked(solver, sde, nodes, x, draws=None):
    """The states at all nodes, with given normals."""
    noise = None if draws is None else ReplayedNoise(draws)
    steps = integrate(sde, solver, x, nodes, noise, memory=solver.begin(sde, nodes))
    return torch.stack([x, *steps])


def slope(h, error):
    """Exponent p of error ∝ h^p, by least squares through all points."""
    return float(np.polyfit(np.log(np.asarray(h)), np.log(np.abs(np.asarray(error))), 1)[0])


def linear_chain_moments(solver, sde, nodes, mean, var, *, draws=1):
    """Mean and variance at each node of the chain that a solver makes of a 1-D linear SDE.

    One step is x' = A x + b(z). A and b are read off the solver itself, b at the nodes of a
    Gauss-Hermite rule, exact for the polynomials of degree ≤ 3 that b is. Nothing is sampled.

    Args:
        solver: Any one-step solver.
        sde: Linear drift, additive noise or none, in one dimension.
        nodes: Times of the chain, float64.
        mean: Mean at nodes[0].
        var: Variance at nodes[0].
        draws: Normals that a step takes.

    Returns:
        Shape (len(nodes), 2).
    """
    z, w = np.polynomial.hermite_e.hermegauss(4)
    grid = torch.tensor(np.stack(np.meshgrid(*[z] * draws)).reshape(draws, -1))
    weight = torch.tensor(np.stack(np.meshgrid(*[w / w.sum()] * draws)).reshape(draws, -1)).prod(0)
    none = torch.zeros(2, dtype=torch.float64)
    columns = [torch.cat([none, g])[:, None] for g in grid]
    x0 = torch.zeros(len(weight) + 2, 1, dtype=torch.float64)
    x0[1] = 1.0
    moments = [(mean, var)]
    for i in range(len(nodes) - 1):
        noise = Replay(columns) if solver.is_stochastic(sde) else None
        x = solved(solver, sde, x0, nodes[i : i + 2], noise=noise, keep_path=False).states[
            -1, :, 0
        ]
        a, b = float(x[1] - x[0]), x[2:]
        shift = float(weight @ b)
        mean = a * mean + shift
        var = a * a * var + float(weight @ (b - shift).square())
        moments.append((mean, var))
    return torch.tensor(moments, dtype=torch.float64)


def affine_run_moments(solver, sde, nodes, mean, var):
    """Mean and variance at nodes[-1] of a run that is affine in its start and its draws.

    x_N = a x_0 + Σ b_i z_i + c, whatever the solver remembers; a, each b and c are read off runs
    with one unit each.
    """
    n = len(nodes) - 1
    units = torch.eye(n, n + 2, dtype=torch.float64)
    x0 = torch.zeros(n + 2, 1, dtype=torch.float64)
    x0[n] = 1.0
    draws = units[:, :, None] if solver.is_stochastic(sde) else None
    x = walked(solver, sde, nodes, x0, draws)[-1, :, 0]
    c = x[-1]
    a, b = x[n] - c, x[:n] - c
    return torch.stack([a * mean + c, a * a * var + b.square().sum()])


def ou_moments(rate, mu, sigma, mean, var, t):
    """Mean and variance of dX = −k(X − μ)dt + σ dW at t, from a Gaussian at 0."""
    decay = math.exp(-rate * t)
    return (
        mu + (mean - mu) * decay,
        var * decay**2 + sigma**2 / (2 * rate) * (1 - decay**2),
    )


def strong_error_ou(solver, steps, *, rate=1.0, sigma=SQRT_2, t_end=1.0, draws=1):
    """Root mean square of X_N − X_T on the same Brownian path, exactly; X_0 = 0.

    Both are linear in the path: X_T = ∫ φ dW, φ(s) = σ e^{−k(T−s)}, and X_N = Σ B_i z_i + C_i u_i
    with z_i = ΔW_i/√h and, for draws = 2, u_i = √12 (∫(W_s − W_{t_i}) ds/h^{3/2} − z_i/2), which
    the solver answers to one unit of z_i or u_i at a time.
    """
    h = t_end / steps
    nodes = torch.arange(steps + 1, dtype=torch.float64) * h
    units = torch.eye(steps * draws, dtype=torch.float64)
    x0 = torch.zeros(steps * draws, 1, dtype=torch.float64)
    replay = Replay([u[:, None] for u in units])
    sde = sg.OrnsteinUhlenbeck(rate, 0.0, sigma)
    answer = solved(solver, sde, x0, nodes, noise=replay, keep_path=False).states[-1]
    answer = answer.reshape(steps, draws)
    decay = torch.exp(-rate * (t_end - nodes))
    later, sooner = decay[1:], decay[:-1]
    with_dw = sigma * (later - sooner) / rate  # ∫ φ ds over a step
    square = sigma**2 * (later**2 - sooner**2) / (2 * rate)  # ∫ φ² ds
    with_ramp = sigma * ((later - sooner) / rate**2 - h * sooner / rate)  # ∫ φ (t_{i+1} − s) ds
    on_z = with_dw / math.sqrt(h)
    variance = (answer[:, 0] - on_z) ** 2 + square - on_z**2
    if draws == 2:
        on_u = math.sqrt(12) * (with_ramp / h**1.5 - with_dw / (2 * math.sqrt(h)))
        variance = variance + (answer[:, 1] - on_u) ** 2 - on_u**2
    return math.sqrt(float(variance.sum()))


def coarsen(z, u, m):
    """Normals of steps m times as long on the same Brownian paths.

    Args:
        z: ΔW/√h of each fine step, shape (steps, paths).
        u: √12 (∫(W_s − W_{t_i}) ds/h^{3/2} − z/2), same shape.
        m: How many fine steps make one.

    Returns:
        z and u of the coarse steps, shape (steps/m, paths).
    """
    shape = (z.shape[0] // m, m, z.shape[1])
    w, area = z.reshape(shape), (0.5 * z + u / math.sqrt(12)).reshape(shape)
    coarse_area = (area + w.cumsum(1) - w).sum(1) / m**1.5
    coarse_z = w.sum(1) / math.sqrt(m)
    return coarse_z, math.sqrt(12) * (coarse_area - 0.5 * coarse_z)


class NoisedGaussian:
    """The law N(α μ, α² s² + σ²) of N(μ, s²) under a linear SDE: density at t, and exact score."""

    def __init__(self, sde, mean, std):
        self.sde, self.mean, self.variance = sde, mean, std**2

    def moments(self, t):
        t = torch.as_tensor(t, dtype=torch.float64)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return alpha * self.mean, alpha**2 * self.variance + sigma**2

    def score(self, x, t):
        mean, variance = (expand(c, x) for c in self.moments(t))
        return (mean - x) / variance


def geometric_errors(solver, coarsenings, *, fine=512, paths=4000):
    """Strong error of dX = X/2 dt + X/2 dW against its solution on the same paths, T = 1."""
    source = stream(0, "test paths")
    z, u = (source.normal((fine, paths), dtype=torch.float64) for _ in range(2))
    mu, sigma = 0.5, 0.5
    sde = sg.ItoProcess(lambda x, t: mu * x, lambda x, t: sigma * x)
    end = torch.exp(mu - sigma**2 / 2 + sigma * z.sum(0) / math.sqrt(fine))
    errors = []
    for m in coarsenings:
        nodes = torch.linspace(0, 1, fine // m + 1, dtype=torch.float64)
        two = getattr(solver, "method", "") == "srk"
        pairs = zip(*coarsen(z, u, m), strict=True)
        draws = [w[:, None] for pair in pairs for w in (pair if two else pair[:1])]
        x0 = torch.ones(paths, 1, dtype=torch.float64)
        with torch.no_grad():
            x = solved(solver, sde, x0, nodes, noise=Replay(draws), keep_path=False).states[
                -1, :, 0
            ]
        errors.append(float((x - end).square().mean().sqrt()))
    return errors


def noised_gaussian(mean=1.0, std=0.25, *, t_min=1e-3):
    """VP(β 0.1 … 20), and a 1-D Gaussian under it."""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=t_min)
    return sde, NoisedGaussian(sde, mean, std)


def gaussian_flow(noised, x, t, s):
    """Where the probability flow of a noised 1-D Gaussian takes x from t to s: same quantile."""
    (mean_t, var_t), (mean_s, var_s) = noised.moments(t), noised.moments(s)
    return mean_s + (x - mean_t) * torch.sqrt(var_s / var_t)


def mixture_flow(noised, x, t, s):
    """Where the probability flow of a noised 1-D mixture takes x from t to s: same quantile."""

    def below(g, y):
        z = (y - g.means[:, 0]) / g.variances[:, 0].sqrt()
        # from the nearer end, so that no tail is lost to 1 − u
        return [(g.weights * torch.special.ndtr(side)).sum(1, keepdim=True) for side in (z, -z)]

    before, after = noised.at(t), noised.at(s)
    left, right = below(before, x)
    low, high = torch.full_like(x, -50.0), torch.full_like(x, 50.0)
    for _ in range(80):
        middle = 0.5 * (low + high)
        reached, remaining = below(after, middle)
        short = torch.where(left < 0.5, reached < left, remaining > right)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    return 0.5 * (low + high)


def box_cdf(kind, length, d, start, t):
    """F(x) at time t of a Brownian motion of diffusion coefficient d on [0, length].

    Args:
        kind: "no-flux": the cosine series; "periodic": the Fourier series.
        length: L.
        d: D = σ²/2.
        start: Where it starts.
        t: Time, of which D t/L² should not be tiny: 200 terms.
    """
    n = np.arange(1, 201)

    def cdf(x):
        x = np.asarray(x)[..., None]
        if kind == "no-flux":
            q = n * np.pi / length
            terms = np.cos(q * start) * np.exp(-d * q**2 * t) * np.sin(q * x) / q
        else:
            q = 2 * n * np.pi / length
            terms = np.exp(-d * q**2 * t) * (np.sin(q * (x - start)) + np.sin(q * start)) / q
        return (x[..., 0] + 2 * terms.sum(-1)) / length

    return cdf


def box_survival(length, d, start, t):
    """Chance that a Brownian motion has met neither end of [0, length] by time t."""
    n = np.arange(1, 400, 2)
    q = n * np.pi / length
    return float((4 / (n * np.pi) * np.sin(q * start) * np.exp(-d * q**2 * t)).sum())


def robin_cdf(length, d, start, t, reactivity):
    """F(x) of a Brownian motion on [0, length]: no flux at 0, D p′ = −κ p at length.

    Args:
        length: L.
        d: D = σ²/2.
        start: Where it starts.
        t: Time, of which D t/L² should not be tiny: 200 terms.
        reactivity: κ; 0 is no flux, ∞ is p = 0.
    """
    # the roots of q tan(q L) = κ/D, one between nπ/L and (n + ½)π/L; L F has what survives
    h = reactivity * length / d
    ends = (np.arange(200)[:, None] + [0.0, 0.5]) * np.pi
    if h == 0:
        q = ends[:, 0]
    elif math.isinf(h):
        q = ends[:, 1]
    else:
        q = np.array(
            [optimize.brentq(lambda q: q * np.sin(q) - h * np.cos(q), *pair) for pair in ends]
        )
    weight = np.exp(-d * (q / length) ** 2 * t) * np.cos(q * start / length)
    weight = 2 * weight / (1 + np.sinc(2 * q / np.pi))

    def cdf(x):
        y = np.asarray(x)[..., None] / length
        return (weight * y * np.sinc(q * y / np.pi)).sum(-1)

    return cdf


def absorbed_box_cdf(length, d, start, t):
    """F(x) of a Brownian motion on [0, length] that has met neither end; F(L) is its survival."""
    q = np.arange(1, 201) * np.pi / length
    weight = 2 / length * np.sin(q * start) * np.exp(-d * q**2 * t) / q
    return lambda x: (weight * (1 - np.cos(q * np.asarray(x)[..., None]))).sum(-1)


# ---- densities in one dimension, as functions of nodes x (numpy) and a time -------------------


def normal_density(x, mean, var):
    return np.exp(-0.5 * (x - mean) ** 2 / var) / np.sqrt(2 * np.pi * var)


def absorbed_drift_density(x, t, *, x0, v, d):
    """Drifted Brownian motion from x0 > 0, absorbed at 0: an image of the other sign."""
    image = math.exp(-v * x0 / d) * normal_density(x, -x0 + v * t, 2 * d * t)
    return normal_density(x, x0 + v * t, 2 * d * t) - image


def first_passage_density(t, *, x0, v, d):
    """When drifted Brownian motion from x0 > 0 first meets 0."""
    return x0 / np.sqrt(4 * np.pi * d * t**3) * np.exp(-((x0 + v * t) ** 2) / (4 * d * t))


def sedimentation_density(x, t, *, x0, v, d):
    """Falling with −v onto a reflecting wall at 0."""
    both = normal_density(x, x0, 2 * d * t) + normal_density(x, -x0, 2 * d * t)
    tail = special.erfc((x + x0 - v * t) / math.sqrt(4 * d * t))
    tilt = np.exp(-v * (x - x0) / (2 * d) - v * v * t / (4 * d))
    return both * tilt + v / (2 * d) * np.exp(-v * x / d) * tail


def box_density(x, t, *, x0, d, length, absorbing):
    """Diffusion in [0, L] between two like walls: a series of sines or of cosines."""
    k = np.arange(1, 200)[:, None]
    wave = np.sin if absorbing else np.cos
    modes = wave(k * np.pi * x / length) * wave(k * np.pi * x0 / length)
    total = 2 / length * (modes * np.exp(-d * (k * np.pi / length) ** 2 * t)).sum(0)
    return total if absorbing else total + 1 / length


def geometric_density(x, t, *, x0, mu, sigma, alpha=0.0):
    """Geometric Brownian motion in the reading α: log x is normal."""
    inside = np.maximum(x, 1e-300)
    mean = math.log(x0) + (mu - (1 - 2 * alpha) * sigma**2 / 2) * t
    return np.where(x > 0, normal_density(np.log(inside), mean, sigma**2 * t) / inside, 0.0)


def cox_ingersoll_ross_density(x, t, *, x0, kappa, theta, sigma):
    """dX = κ(θ − X) dt + σ√X dW: 2cX is non-central χ²."""
    c = 2 * kappa / (sigma**2 * (1 - math.exp(-kappa * t)))
    freedom = 4 * kappa * theta / sigma**2
    return 2 * c * stats.ncx2.pdf(2 * c * x, freedom, 2 * c * x0 * math.exp(-kappa * t))


def washboard(force, d, length=2 * math.pi):
    """v and D_eff of dX = (2 cos X + F) dt + √(2D) dW, by the integrals I± over a period.

    The periodic trapezoidal rule in x, Gauss in y (Reimann et al. 2001).
    """
    x = np.linspace(0, length, 200, endpoint=False)[:, None]
    z, w = np.polynomial.legendre.leggauss(200)
    y, w = 0.5 * length * (1 + z), 0.5 * length * w

    def energy(u):
        return -2 * np.sin(u) - force * u

    plus = np.exp((energy(x) - energy(x - y)) / d) @ w
    minus = np.exp((energy(x + y) - energy(x)) / d) @ w
    velocity = d * -math.expm1(-force * length / d) / plus.mean()
    return velocity, d * (plus**2 * minus).mean() / plus.mean() ** 3


def ring_of_gaussians():
    """Six unequal, turned Gaussians on a circle of radius 1.2, stds 0.1 … 0.6; variance 0.8."""
    k = torch.arange(6, dtype=torch.float64)
    angle = k * math.pi / 3
    means = 1.2 * torch.stack([angle.cos(), angle.sin()], 1)
    rows = torch.stack([k.cos(), -k.sin(), k.sin(), k.cos()], 1).reshape(6, 2, 2)
    small = torch.tensor([0.15, 0.3, 0.1, 0.2, 0.25, 0.12], dtype=torch.float64)
    square = torch.diag_embed(torch.stack([small**2, (2 * small) ** 2], 1))
    covariances = rows @ square @ rows.mT
    covariances = 0.5 * (covariances + covariances.mT)
    weights = [1.0, 2.0, 1.0, 1.5, 0.7, 1.0]
    return sg.GaussianMixture(weights, means, covariances=covariances)


class OracleNoise(nn.Module):
    """ε̂ of a mixture on a path: what a perfectly trained network puts out.

    It is asked as networks are, with x scaled to variance one for data of variance one.
    """

    def __init__(self, mixture, path):
        super().__init__()
        self.mixture, self.path = mixture, path
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64), requires_grad=False)

    def forward(self, x, t):
        alpha, sigma = self.path.alpha(t)[:, None], self.path.sigma(t)[:, None]
        x_t = x * (alpha**2 + sigma**2).sqrt()
        return -self.weight * sigma * self.mixture.noised(self.path).score(x_t, t)


# ---- chains that are linear in the state, whatever the noise ----------------------------------

# nodes and weights of z ~ N(0, 1), exact for polynomials of degree ≤ 5. All are multiples of ¼:
# moved by rounding to either side they are in even and in odd cells of ⌊4 z⌋
_NODES = {0.0: 1 / 2, 1.0: 1 / 6, -1.0: 1 / 6, 2.0: 1 / 12, -2.0: 1 / 12}


def _normals_and_signs(draws):
    """Values of z and their weights, shape (n, draws) and (n,), with both signs that z gives."""
    one = [(z + side, w / 2) for z, w in _NODES.items() for side in (1e-13, -1e-13)]
    z, w = (np.array(values) for values in zip(*one, strict=True))
    grid = np.stack(np.meshgrid(*[z] * draws)).reshape(draws, -1)
    weight = np.stack(np.meshgrid(*[w] * draws)).reshape(draws, -1).prod(0)
    return torch.tensor(grid.T.copy()), torch.tensor(weight)


def moments_of_linear_chain(solver, sde, nodes, d, draws):
    """E[M] and E[M ⊗ M] of X_N = M X_0 at nodes[-1], for drift and noise affine in x; exact.

    The state has a 1 as its last number, so that M has d + 1 rows. M is read off the solver in
    each step, for all draws at once; it is of degree ≤ 2 in each of them. Nothing is sampled.

    Args:
        solver: A solver of fixed steps.
        sde: Dynamics of d coordinates.
        nodes: Times of the chain.
        d: Coordinates.
        draws: Normals in a step, d or channels.

    Returns:
        Shape (d + 1, d + 1) and ((d + 1)², (d + 1)²).
    """
    z, weight = _normals_and_signs(draws)
    x = torch.cat([torch.eye(d, dtype=torch.float64), torch.zeros(1, d, dtype=torch.float64)])
    first, second, known = torch.eye(d + 1).double(), torch.eye((d + 1) ** 2).double(), None
    dts = nodes.diff()
    for i in range(len(nodes) - 1):
        same = known is not None and sde.autonomous and torch.allclose(dts[i], dts[0])
        if not same:
            states = x.repeat(len(z), 1)
            given = Given(z.repeat_interleave(d + 1, 0)) if sde.noise != "none" else None
            with torch.no_grad():
                memory = solver.begin(sde, nodes)
                after = solver.step(sde, states, i, given, memory)[0].reshape(len(z), d + 1, d)
            M = torch.zeros(len(z), d + 1, d + 1, dtype=torch.float64)
            M[:, :d, d], M[:, d, d] = after[:, d], 1.0
            M[:, :d, :d] = (after[:, :d] - after[:, d:]).mT
            both = torch.einsum("nij,nkl->nikjl", M, M).reshape(len(z), (d + 1) ** 2, -1)
            known = torch.tensordot(weight, M, 1), torch.tensordot(weight, both, 1)
        first, second = known[0] @ first, known[1] @ second
    return first, second


def moments_of_linear_sde(F, Bs, t):
    """The same of dX = F X dt + Σ_k B_k X dW_k at t, by the matrices of the generator; Itô.

    Args:
        F: Shape (d + 1, d + 1), the last row and column those of the constant 1.
        Bs: One such matrix for each Wiener process.
        t: Time.
    """
    eye = torch.eye(len(F), dtype=torch.float64)
    both = torch.kron(F, eye) + torch.kron(eye, F) + sum(torch.kron(B, B) for B in Bs)
    return torch.linalg.matrix_exp(F * t), torch.linalg.matrix_exp(both * t)
