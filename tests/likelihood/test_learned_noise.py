"""Flows, reversals and likelihoods under noise that depends on the state, against exact laws.

A linear process Y with a known law, seen through X = φ(Y), is a nonlinear process with noise
Dφ(Y) B that depends on X, and

    p_t(x) = p_t^Y(φ⁻¹(x)) |det Dφ|⁻¹

is exact. φ(y) = sinh(c y)/c makes g = σ√(1 + c²x²) on a line; φ(y) = (y₁, y₂ + a y₁²) a matrix in
the plane.
"""

import math
import warnings

import pytest
import torch
from scipy import stats

import sdegen as sg

F64 = torch.float64
LOW, HIGH = 0.3, 1.5
A_PLANE = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=F64)  # turns
B_PLANE = torch.tensor([[0.7, 0.0], [0.3, 0.6]], dtype=F64)
BEND, CURVE, NOISE = 0.4, 0.8, 0.8


class Line:
    """x = sinh(c y)/c of an Ornstein–Uhlenbeck process: g = σ√(1 + c²x²)."""

    dim = 1

    def __init__(self):
        self.own = sg.LinearSDE([[1.0]], [[NOISE]])
        self.law = sg.GaussianMixture([1.0], [[0.9]], stds=0.3).noised(self.own)
        lift = 0.5 * NOISE**2 * CURVE**2
        self.sde = sg.ItoProcess(
            lambda x: -self.inverse(x) * self._slope(x) + lift * x,
            lambda x: NOISE * self._slope(x),
        )

    def _slope(self, x):
        return (1 + (CURVE * x).square()).sqrt()

    def inverse(self, x):
        return (CURVE * x).asinh() / CURVE

    def forward(self, y):
        return (CURVE * y).sinh() / CURVE

    def log_slope(self, x):
        """Return log |det Dφ| at x."""
        return self._slope(x).log().sum(1)

    def score(self, x, of_y):
        """Return ∇ log p at x of the score of Y at φ⁻¹(x)."""
        return of_y / self._slope(x) - CURVE**2 * x / self._slope(x).square()


class Plane:
    """A rotating process in a bent plane: G = Dφ B is a matrix of x."""

    dim = 2

    def __init__(self):
        self.own = sg.LinearSDE(A_PLANE, B_PLANE)
        self.law = sg.GaussianMixture([1.0], [[0.6, -0.4]], stds=0.3).noised(self.own)
        lift = float((B_PLANE @ B_PLANE.T)[0, 0])

        def drift(x):
            move = -self.inverse(x) @ A_PLANE.to(x).T
            across = move[:, 1] + 2 * BEND * x[:, 0] * move[:, 0] + BEND * lift
            return torch.stack([move[:, 0], across], 1)

        def noise(x):
            B = B_PLANE.to(x).expand(len(x), 2, 2)
            return torch.stack([B[:, 0], B[:, 1] + 2 * BEND * x[:, :1] * B[:, 0]], 1)

        self.sde = sg.ItoProcess(drift, noise, channels=2)

    def inverse(self, x):
        return torch.stack([x[:, 0], x[:, 1] - BEND * x[:, 0] ** 2], 1)

    def forward(self, y):
        return torch.stack([y[:, 0], y[:, 1] + BEND * y[:, 0] ** 2], 1)

    def log_slope(self, x):
        return torch.zeros_like(x[:, 0])

    def score(self, x, of_y):
        return torch.stack([of_y[:, 0] - 2 * BEND * x[:, 0] * of_y[:, 1], of_y[:, 1]], 1)


class Exact:
    """The exact score of a problem, with times as a model has them."""

    score_range = (LOW, HIGH)

    def __init__(self, problem):
        self.problem, self.sde = problem, problem.sde

    def __call__(self, x, t):
        return self.problem.score(x, self.problem.law.score(self.problem.inverse(x), t))


class Timed:
    """A score of densities, with the times of a model."""

    score_range = (LOW, HIGH)

    def __init__(self, score):
        self.score = score

    def __call__(self, x, t):
        return self.score(x, t)


def log_density(problem, x, t):
    return problem.law.log_prob(problem.inverse(x), t) - problem.log_slope(x)


def samples(problem, n, t, seed):
    return problem.forward(problem.law.sample(n, t, rng=seed, dtype=F64))


def likelihood(problem, score, x):
    return sg.log_likelihood(
        problem.sde,
        score,
        x,
        prior_log_prob=lambda z: log_density(problem, z, HIGH),
        solver=sg.TorchDiffEq("dopri5", rtol=1e-6, atol=1e-7),
    ).log_prob


PROBLEMS = {"multiplicative noise": Line, "a matrix of the state": Plane}

LEARNED = (("multiplicative noise", 300, 5e-3, 6000), ("a matrix of the state", 120, 1e-2, 2000))


@pytest.fixture(scope="module", params=PROBLEMS)
def problem(request):
    return PROBLEMS[request.param]()


def test_the_likelihood_of_the_exact_score_is_log_p(problem):
    x = samples(problem, 7, LOW, 0)
    found = likelihood(problem, Exact(problem), x)
    torch.testing.assert_close(found, log_density(problem, x, LOW), rtol=0, atol=2e-5)


def test_the_likelihood_of_a_score_by_fokker_planck_is_log_p():
    problem, n = Plane(), 24
    solver = sg.FokkerPlanck2D(problem.sde, (sg.Grid(-3.2, 3.6, 68), sg.Grid(-3.4, 4.6, 80)))
    blank = solver.gaussian((0.0, 0.0), [[0.3, 0.0], [0.0, 0.3]])
    nodes = torch.cartesian_prod(blank.x, blank.y)
    p = log_density(problem, nodes, LOW).exp().reshape(blank.p.shape)
    start = sg.PlaneDensity(blank.x, blank.y, p)
    times = torch.linspace(LOW, HIGH, 25, dtype=F64)
    path = solver.solve(sg.PlaneDensity(blank.x, blank.y, p / start.mass), times)
    score = Timed(sg.PlaneScore(path, times))
    x = samples(problem, n, LOW, 5)
    found = likelihood(problem, score, x)
    off = found - log_density(problem, x, LOW)
    assert float(off.abs().max()) < 3e-3  # 1.3e-3 on this grid


def test_the_flow_is_that_of_the_linear_process_seen_through_the_map(problem):
    """Its velocity, ½ (forward + backward mean derivative), is a vector: φ carries it along."""
    solver, ends = sg.TorchDiffEq("dopri5", rtol=1e-8, atol=1e-9), [HIGH, LOW]
    x = samples(problem, 9, HIGH, 1)
    back = sg.ReverseSDE(problem.sde, Exact(problem), eta=0.0)
    found = sg.simulate(back, x, ends, solver=solver).final
    own = sg.ReverseSDE(problem.own, problem.law.score, eta=0.0)
    y = sg.simulate(own, problem.inverse(x), ends, solver=solver).final
    torch.testing.assert_close(found, problem.forward(y), rtol=0, atol=1e-6)


def test_the_reversal_ends_in_p(problem):
    """By Kolmogorov and Smirnov, of each coordinate of whitened Y; 1e-5 each."""
    n = 4000
    back = sg.ReverseSDE(problem.sde, Exact(problem))
    times, start = torch.linspace(HIGH, LOW, 201), samples(problem, n, HIGH, 2)
    x = sg.simulate(back, start, times, solver=sg.EulerMaruyama(), rng=3, keep_path=False).final
    at = problem.law.at(LOW)
    root = torch.linalg.cholesky(at.covariance)
    off = problem.inverse(x) - at.mean
    white = torch.linalg.solve_triangular(root, off.T, upper=False)
    for row in white:
        assert stats.kstest(row.numpy(), "norm").statistic * math.sqrt(n) < 2.47


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "rate", "n"), LEARNED, ids=PROBLEMS)
def test_the_likelihood_of_a_learned_score_is_off_by_no_more_than_the_score(name, steps, rate, n):
    """KL(p ‖ q) = ½ ∫ E (s − ŝ)ᵀ G Gᵀ (s − s_q) dt, q the law of the flow and s_q its score.

    Where s_q is ŝ that is the score's own error; it is asked to be within twice of it.
    """
    problem = PROBLEMS[name]()
    exact, data = Exact(problem), samples(problem, 20_000, 1e-6, 1).float()
    network = sg.MLP(problem.dim, 48, 2, rng=0)
    model = sg.ScoreModel(network, problem.sde, times=(LOW, HIGH))
    config = sg.TrainConfig(
        steps=steps, batch_size=512, learning_rate=rate, warmup=20, ema_decay=0.98
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sg.AccuracyWarning)  # p_T is not at rest, and is known
        sg.train(model, data, config, loss=sg.TransitionMatching(paths=4096), rng=0)
    times = torch.linspace(math.sqrt(LOW), math.sqrt(HIGH), 21, dtype=F64).square()
    rates = []
    for k, t in enumerate(times):
        y = samples(problem, 2000, float(t), 10 + k)
        with torch.no_grad():
            off = model.score(y, t) - exact(y, t)
        rates.append(
            0.5 * float((off * problem.sde.covariance_times(y, t, off, 1.0)).sum(1).mean())
        )
    own = float(torch.trapezoid(torch.tensor(rates, dtype=F64), times))
    x = samples(problem, n, LOW, 2)
    gap = log_density(problem, x, LOW) - likelihood(problem, model.score, x)
    error = 4.5 * float(gap.std()) / math.sqrt(n)  # 1e-5
    assert own < 0.1
    assert -error < float(gap.mean()) < 2 * own + error


def test_a_density_at_the_end_is_asked_for():
    line = Line()
    with pytest.raises(ValueError, match=r"pass log_likelihood\(…, prior_log_prob=\)"):
        sg.log_likelihood(line.sde, Exact(line), torch.zeros(2, 1))
    hidden = sg.ItoProcess(lambda x: -x.detach(), lambda x: 1 + 0.1 * x.sin())
    dim = sg.ItoProcess(lambda x: -x, lambda x: 1 + 0.1 * x.detach().sin())
    for sde, name in ((hidden, "drift"), (dim, "noise")):
        with pytest.raises(ValueError, match=f"the {name} changes with x"):
            sg.log_likelihood(
                sde,
                Timed(lambda x, t: -x),
                torch.zeros(2, 1),
                prior_log_prob=lambda z: z.sum(1),
            )
