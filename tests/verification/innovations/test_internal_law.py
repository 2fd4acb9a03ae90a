"""Particles whose centre of mass is held: right states pass, and another temperature does not."""

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Noise
from sdegen.core.solver import integrate
from sdegen.readers.read import read_states

F64 = torch.float64
MASS = torch.tensor([[1.0], [2.0], [0.5], [1.0]], dtype=F64)
H = 0.05


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def pairs(x):
    """A polymer of four beads that is stiffer than a spring."""
    bonds = x.diff(dim=1).square().sum(-1)
    return (bonds + 0.2 * bonds**2).sum(1)


def polymer(temperature=1.0):
    return sg.UnderdampedLangevin(pairs, 1.0, temperature=temperature, mass=MASS)


def walk(sde, x, steps, held):
    """States of single steps, after each of which the motion of the centre is taken out."""
    states = [x]
    for k in range(steps):
        noise = Noise(x, rng=k)
        (x,) = integrate(sde, sg.BAOAB(), x, torch.tensor([0.0, H], dtype=F64), noise)
        x = held(x)
        states.append(x)
    return torch.stack(states)


def without_motion(x):
    """Positions and velocities less those of the centre of mass."""
    return x - (MASS * x).sum(2, keepdim=True) / MASS.sum()


def path():
    start = polymer().state(normals(60, 4, 2), normals(60, 4, 2, seed=1) / MASS.sqrt())
    with torch.no_grad():
        return walk(polymer(), without_motion(start), 100, without_motion)


def test_what_is_left_of_noise_is_standard_beside_the_centre():
    states = path()
    right = sg.certify(
        polymer(), path=read_states(states, dt=H, phase_space=True, centre_removed=True)
    )
    assert right.passed
    assert right.steps.sample.z.shape[2] == 6  # of 3 in each of two dimensions
    # unless it is said, a degree of freedom in eight is missing
    assert not sg.certify(polymer(), path=read_states(states, dt=H, phase_space=True)).passed
    for given, wrong in ((states, 1.2), (states[:, :, 0], 1.4)):
        stored = read_states(given, dt=H, phase_space=given.ndim == 5, centre_removed=True)
        assert sg.certify(polymer(), path=stored).passed
        assert not sg.certify(polymer(wrong), path=stored).passed


def test_what_has_no_centre_is_refused():
    line = sg.ItoProcess(lambda x: -x, 1.0)
    flat = read_states(normals(30, 5, 3), dt=H, centre_removed=True)
    with pytest.raises(ValueError, match="particles, dimensions"):
        sg.certify(line, path=flat)
    stored = read_states(path()[:20], dt=2 * H, phase_space=True, centre_removed=True)
    with pytest.raises(ValueError, match="store every step of a solver"):
        sg.certify(polymer(), path=stored, solver=sg.BAOAB(substeps=2))
