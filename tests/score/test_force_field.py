"""Force fields of samples: D times their score, its error told, and what is none refused."""

import pytest
import torch

import sdegen as sg

F64 = torch.float64
QUICK = sg.FitConfig(steps=120, batch_size=256, learning_rate=1e-2, keep="best", validate_every=40)


def test_the_force_of_a_pair_of_wells_and_what_is_told_of_its_error():
    """Exact samples of a mixture on a line: f = D ∇log p is known."""
    law = sg.GaussianMixture([0.6, 0.4], [[10.0], [14.0]], stds=[1.0, 1.2])
    x = law.sample(3000, rng=0)
    force = sg.force_field(x, 0.5, config=QUICK, rng=0)
    fresh = law.sample(4000, rng=1, dtype=F64)
    with torch.no_grad():
        found, right = force(fresh), 0.5 * law.force(fresh)
    missed = float(((found - right).square().sum() / right.square().sum()).sqrt())
    assert missed < 0.2
    assert missed / 4 < force.error < 4 * missed
    torch.testing.assert_close(0.5 * force.score(fresh, 0.3), found)
    # the same samples rest under every D, with forces as much larger
    double = sg.ForceField(force.halves, force.mean, force.std, 2 * force.diffusivity, 0.0)
    torch.testing.assert_close(double(fresh), 2 * found)


def test_a_matrix_turns_the_score():
    """One step is enough: f = D s, D symmetric and full."""
    D = torch.tensor([[0.5, 0.2], [0.2, 0.8]], dtype=F64)
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    force = sg.force_field(x, D, config=sg.FitConfig(steps=2, batch_size=8), rng=0)
    torch.testing.assert_close(force(x), force.score(x) @ D)
    with pytest.raises(ValueError, match=r"x must have shape \(batch, 2\)"):
        force(x[:, :1])


def test_what_has_no_force_is_refused_by_name():
    x = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="samples must be floats of shape"):
        sg.force_field(x[:10], 1.0)
    with pytest.raises(ValueError, match="samples must be finite, but 1 of 80 are not"):
        sg.force_field(torch.cat([x[1:], x[:1] / 0]), 1.0)
    with pytest.raises(ValueError, match=r"coordinate 1 is always -?0"):
        sg.force_field(x * torch.tensor([1.0, 0.0]), 1.0)
    with pytest.raises(ValueError, match="diffusivity must be symmetric and positive"):
        sg.force_field(x, [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match="diffusivity must be a number or have shape"):
        sg.force_field(x, [1.0, 1.0, 1.0])
    with pytest.raises(TypeError, match="diffusivity must be a number D > 0"):
        sg.force_field(x, lambda x: 1.0)
    with pytest.raises(TypeError, match="config must be a FitConfig"):
        sg.force_field(x, 1.0, config=sg.ImplicitLoss())
