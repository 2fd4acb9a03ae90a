import math

import pytest
import torch

import sdegen as sg
from sdegen.fokker_planck.batch import FokkerPlanckBatch
from sdegen.fokker_planck.questions.transient import BackwardEuler, Exponential

GRID = sg.Grid(-3.5, 3.5, 60)
THETAS = torch.tensor([[1.0, 1.0, 0.9], [0.4, 0.7, 1.0], [-0.5, 0.9, 0.8]], dtype=torch.float64)


def well(theta):
    """A double well with free coefficients and a free noise that depends on x."""
    return sg.ItoProcess(
        drift=lambda x: theta[0] * x - theta[1] * x**3,
        diffusion=lambda x: theta[2] * (1 + 0.2 * torch.sin(x)),
    )


def driven(theta):
    return sg.ItoProcess(
        drift=lambda x, t: theta[0] * torch.sin(3 * t) - theta[1] * x,
        diffusion=lambda x, t: theta[2] * (1 + 0.1 * t) + 0 * x,
    )


def tilted(theta):
    return sg.ItoProcess(
        drift=lambda x: theta[0] * torch.sin(x) + theta[1], diffusion=lambda x: theta[2] + 0 * x
    )


def family(make, thetas, grid=GRID, boundary="no-flux", **options):
    return FokkerPlanckBatch([make(theta) for theta in thetas], grid, boundary, **options)


def largest_difference(make, grid, boundary, ask, **options):
    """Between a family and its members one by one."""
    together = ask(family(make, THETAS, grid, boundary, **options))
    alone = torch.stack(
        [ask(sg.FokkerPlanck(make(theta), grid, boundary, **options)).p for theta in THETAS]
    )
    assert together.shape == alone.shape
    assert float((together[0] - together[1]).abs().max()) > 0.01
    return float((together - alone).abs().max())


RING = sg.Grid(0.0, 2 * math.pi, 50)


@pytest.mark.parametrize(
    ("make", "grid", "boundary"), [(well, GRID, "no-flux"), (tilted, RING, "periodic")]
)
def test_stationary_densities_are_those_of_the_members(make, grid, boundary):
    assert largest_difference(make, grid, boundary, lambda s: s.stationary()) < 1e-12


@pytest.mark.filterwarnings("ignore:the start is so narrow")
@pytest.mark.parametrize(
    ("make", "grid", "boundary", "start", "integrator"),
    [
        (well, GRID, "no-flux", "gaussian", None),
        (well, GRID, "no-flux", 0.3, None),
        (well, GRID, "no-flux", "gaussian", BackwardEuler(3)),
        (well, GRID, ("no-flux", "absorbing"), "gaussian", None),
        (tilted, RING, "periodic", "gaussian", None),
        (driven, sg.Grid(-9.0, 9.0, 90), "no-flux", "gaussian", Exponential(4)),
    ],
)
def test_densities_in_time_are_those_of_the_members(make, grid, boundary, start, integrator):
    middle = 0.5 * (grid.low + grid.high) - 0.2
    p0 = grid.gaussian(middle, 0.4) if start == "gaussian" else start
    times = [0.0, 0.1, 0.6]
    gap = largest_difference(
        make, grid, boundary, lambda s: s.solve(p0, times, integrator=integrator, rtol=1.0)
    )
    assert gap < 1e-12


@pytest.mark.filterwarnings("ignore:the start is so narrow")
def test_gradients_of_both_and_no_member_sees_another():
    thetas = THETAS[:2].clone().requires_grad_()
    grid = sg.Grid(-3.5, 3.5, 30)

    def rest(thetas):
        return family(well, thetas, grid, truncation_is_physical=True).stationary(
            differentiable=True
        )

    def moved(thetas):
        members = family(well, thetas, grid, truncation_is_physical=True)
        p0 = grid.gaussian(-0.8, 0.5)
        return members.solve(p0, [0.0, 0.4], rtol=1.0, differentiable=True)[:, 1, ::3]

    assert torch.autograd.gradcheck(rest, (thetas,), atol=1e-7)
    assert torch.autograd.gradcheck(moved, (thetas,), atol=1e-6)
    for ask in (rest, moved):
        jacobian = torch.autograd.functional.jacobian(ask, thetas)
        assert float(jacobian[0, :, 1].abs().max()) == 0
        assert float(jacobian[1, :, 0].abs().max()) == 0
        assert float(jacobian[0, :, 0].abs().max()) > 0.01
    assert not family(well, thetas, grid, truncation_is_physical=True).stationary().requires_grad


def test_a_family_of_traps_against_its_law():
    # dX = −k X dt + √2 dW from N(1, ¼): mean e^{−kt}, variance 1/k + (¼ − 1/k) e^{−2kt}
    rates = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    grid = sg.Grid(-12.0, 12.0, 600)
    traps = FokkerPlanckBatch(
        [sg.OrnsteinUhlenbeck(rate=k, sigma=math.sqrt(2)) for k in rates.tolist()], grid
    )
    p = traps.solve(grid.gaussian(1.0, 0.5), [0.0, 0.7])[:, 1]
    mean, decay = torch.exp(-0.7 * rates)[:, None], torch.exp(-1.4 * rates)[:, None]
    variance = 1 / rates[:, None] + (0.25 - 1 / rates[:, None]) * decay
    exact = torch.exp(-((grid.nodes - mean) ** 2) / (2 * variance))
    exact = exact / (2 * math.pi * variance).sqrt()
    assert float((p - exact).abs().max()) < 1e-7


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FokkerPlanckBatch([], GRID), ValueError, "needs one SDE at least.* but got 0"),
        (
            lambda: family(well, THETAS, boundary="absorbing").stationary(),
            sg.NotNormalizableError,
            "there are no stationary densities: all mass leaves",
        ),
        (
            lambda: family(driven, THETAS).stationary(),
            ValueError,
            "a stationary density was asked for, but drift or diffusion depend on time",
        ),
        (
            lambda: FokkerPlanckBatch(
                [
                    sg.ItoProcess(drift=lambda x: 1 - x, diffusion=lambda x, a=a: a + x.sqrt())
                    for a in (0.1, 0.0)
                ],
                sg.Grid(0.0, 16.0, 100),
            ),
            ValueError,
            r"the diffusion of sdes\[1\] vanishes at a wall",
        ),
        (
            lambda: family(tilted, THETAS).stationary(),
            sg.NotNormalizableError,
            "grows towards",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_members_that_the_grid_does_not_resolve_are_refined_alone():
    traps = [sg.ItoProcess(lambda x, k=k: -k * x, math.sqrt(2.0)) for k in (1.0, 4000.0)]
    grid = sg.Grid(-8.0, 8.0, 80)
    p = sg.FokkerPlanckBatch(traps, grid).stationary()
    # the peak of N(0, 1/4000), in cells of 13 standard deviations
    assert float(p[1, 40]) == pytest.approx(math.sqrt(4000 / (2 * math.pi)), rel=1e-3)
    assert float(p[0, 40]) == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-4)
    assert float(p.error) < 1e-3


def test_warnings_point_at_the_line_of_the_call(programs):
    """In a program of its own: in the tests a checker of shapes stands between."""
    lines = [
        "import warnings, sdegen as sg",
        "ou, grid = sg.OrnsteinUhlenbeck(rate=1.0, sigma=1.5), sg.Grid(-5.0, 5.0, 60)",
        "start = grid.gaussian(0.0, 1.0)",
        "one, both = sg.FokkerPlanck(ou, grid), sg.FokkerPlanckBatch([ou], grid)",
        "with warnings.catch_warnings(record=True) as told:",
        "    warnings.simplefilter('always')",
        "    one.stationary()",
        "    both.stationary()",
        "    one.solve(start, [0.0, 3.0])",
        "    both.solve(start, [0.0, 3.0])",
        "print([(w.lineno, 'the grid cuts it' in str(w.message)) for w in told])",
    ]
    expected = [(line, True) for line in (7, 8, 9, 10)]
    assert programs.run(code="\n".join(lines)) == f"{expected}\n"
