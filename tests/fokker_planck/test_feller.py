import math

import pytest
import torch

import sdegen as sg


def sde(drift, diffusion=1.0):
    return sg.ItoProcess(drift=drift, diffusion=diffusion)


# Karlin and Taylor 1981, section 15.6, and the tests of Feller for explosion
CASES = [
    ("Brownian motion at a wall", sde(lambda x: 0 * x), 0.0, "regular"),
    ("Brownian motion at infinity", sde(lambda x: 0 * x), math.inf, "natural"),
    ("Ornstein-Uhlenbeck at infinity", sg.OrnsteinUhlenbeck(), math.inf, "natural"),
    ("comes down from infinity", sde(lambda x: -(x**3)), math.inf, "entrance"),
    ("explodes", sde(lambda x: x**3), math.inf, "exit"),
    ("drifts off", sde(lambda x: x), math.inf, "natural"),
    ("Bessel, d = 3", sde(lambda x: 1 / x), 0.0, "entrance"),
    ("Bessel, d = 1.5", sde(lambda x: 0.25 / x), 0.0, "regular"),
    ("Bessel, d = −1", sde(lambda x: -1 / x), 0.0, "exit"),
    (
        "root noise, Feller's condition met",
        sde(lambda x: 1 - x, lambda x: x.sqrt()),
        0.0,
        "entrance",
    ),
    ("root noise, not met", sde(lambda x: 0.2 - x, lambda x: x.sqrt()), 0.0, "regular"),
    ("branching", sde(lambda x: -x, lambda x: x.sqrt()), 0.0, "exit"),
    ("geometric", sde(lambda x: 0.1 * x, lambda x: 0.4 * x), 0.0, "natural"),
    ("geometric at infinity", sde(lambda x: 0.1 * x, lambda x: 0.4 * x), math.inf, "natural"),
    ("exponential force", sde(lambda x: -torch.sinh(x)), math.inf, "entrance"),
    ("exponential force outward", sde(torch.sinh), math.inf, "exit"),
    ("a wall of Morse's", sde(lambda x: 1 - x.exp()), math.inf, "entrance"),
    ("noise that fades", sde(lambda x: -x, lambda x: (-x).exp()), math.inf, "natural"),
    (
        "Wright-Fisher without mutation",
        sde(lambda x: 0 * x, lambda x: (x * (1 - x)).sqrt()),
        0.0,
        "exit",
    ),
    ("inverse Bessel, d = 3", sde(lambda x: 0 * x, lambda x: x**2), math.inf, "entrance"),
]


@pytest.mark.parametrize(("name", "dynamics", "end", "kind"), CASES, ids=[c[0] for c in CASES])
def test_known_ends(name, dynamics, end, kind):
    assert sg.classify_boundary(dynamics, end, inward=1 if end == 0.0 else -1) == kind


def test_a_solver_knows_its_ends():
    grid = sg.Grid(0.0, 16.0, 200)
    root = sg.FokkerPlanck(sde(lambda x: 1 - x, lambda x: x.sqrt()), grid)
    assert root.feller() == ("entrance", "natural")
    box = sg.FokkerPlanck(sde(lambda x: 0 * x), grid, truncation_is_physical=True)
    assert box.feller() == ("regular", "regular")
    cubic = sg.FokkerPlanck(sde(lambda x: -(x**3)), sg.Grid(-4.0, 4.0, 100))
    assert cubic.feller() == ("entrance", "entrance")


def test_an_end_is_found_from_the_side_on_which_the_process_lives():
    gene = sde(lambda x: 0 * x, lambda x: (x * (1 - x)).sqrt())
    assert sg.classify_boundary(gene, 0.0) == sg.classify_boundary(gene, 1.0) == "exit"
    root = sde(lambda x: 0.2 - x, lambda x: x.sqrt())
    assert sg.classify_boundary(root, 0.0) == "regular"
    well = sde(lambda x: 1 - x.exp())  # Morse's wall: a constant drift on the other side
    assert sg.classify_boundary(well, -math.inf) == "natural"
    bessel = sde(lambda x: 1 / x)
    assert sg.classify_boundary(bessel, 0.0, inward=1) == "entrance"
    with pytest.raises(ValueError, match="exist on both sides of x = 0; pass inward=1"):
        sg.classify_boundary(bessel, 0.0)


def test_refusals():
    with pytest.raises(ValueError, match="a ring has no ends"):
        sg.FokkerPlanck(sde(torch.sin), sg.Grid(0.0, 2 * math.pi, 50), "periodic").feller()
    with pytest.raises(ValueError, match="cannot be classified"):
        sg.classify_boundary(sde(lambda x: x, lambda x: (1 - x).sqrt()), math.inf)
