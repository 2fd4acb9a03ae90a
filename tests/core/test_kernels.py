"""Gaussian kernels of linear processes: against transitions, FFTs, and the scalar ones."""

import pytest
import torch
from scipy import fft

import sdegen as sg
from sdegen.core.bases import Coordinates, Cosines, Waves
from sdegen.core.diagonal_kernel import DiagonalKernel
from sdegen.core.matrix_kernel import MatrixKernel
from sdegen.sde.transitions import GaussianLaw

F64 = torch.float64
A = [[1.0, 0.4], [-0.3, 0.8]]
SYMMETRIC = [[1.0, 0.4], [0.4, 0.8]]
CONSTANT = {
    "OrnsteinUhlenbeck": (sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9), DiagonalKernel),
    "unstable": (sg.OrnsteinUhlenbeck(-0.3, 0.2, 0.9), DiagonalKernel),
    "BrownianMotion": (sg.BrownianMotion(0.7), DiagonalKernel),
    "diagonal": (sg.LinearSDE([[1.0, 0.0], [0.0, 2.0]], [0.6, 1.1], 0.3), DiagonalKernel),
    "symmetric": (sg.LinearSDE(SYMMETRIC, 0.6, [0.5, -0.2]), DiagonalKernel),
    "full": (sg.LinearSDE(A, 0.6, [0.5, -0.2]), MatrixKernel),
    "correlated": (sg.LinearSDE(A, [[0.7, 0.0], [-0.9, 0.5]], [0.5, -0.2]), MatrixKernel),
    "one noise": (sg.LinearSDE([[0.0, -1.0], [1.0, 0.5]], [[0.0], [1.0]]), MatrixKernel),
    "critical": (sg.LinearSDE([[0.0, -1.0], [1.0, 2.0]], [[0.0], [1.0]]), MatrixKernel),
}
VARYING = sg.LinearSDE(
    lambda t: [[1 + 0.5 * torch.sin(3 * t), 0.4], [-0.3, 0.8 + t]],
    lambda t: [[0.7, 0.1 * t, 0.2], [-0.9, 0.5, torch.cos(t)]],
    lambda t: [t, 1.0],
    time_range=(0.0, 2.0),
)


def matches_transitions(sde, times, tolerance):
    """Mean, L Lᵀ, L⁻¹ and L⁻ᵀ of a kernel are those of the transition from 0."""
    kernel, ts = sde.noise_kernel, torch.tensor(times, dtype=F64)
    x, eps = torch.randn(2, len(ts), 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    for i, t in enumerate(ts):
        law = sde.transition(0.0, t)
        eye = torch.eye(2, dtype=F64)
        covariance = law.covariance if law.covariance.ndim else law.covariance * eye
        root = kernel.spread(eye, t).T
        size = float(covariance.abs().max())
        torch.testing.assert_close(kernel.mean(x, ts)[i], law.mean(x)[i], rtol=0, atol=tolerance)
        torch.testing.assert_close(root @ root.T, covariance, rtol=0, atol=tolerance * size)
        for back in (kernel.whiten(kernel.spread(eps, ts), ts),):
            torch.testing.assert_close(back, eps, rtol=0, atol=1e-11)
        score = torch.linalg.solve(root.T, eps[i])
        # a transition knows C to rounding of its largest entry, of which the least variance is a
        # share: t²/3 where noise reaches a coordinate through another alone
        known = 64 * torch.finfo(F64).eps * size / float(covariance.diagonal().min()) + tolerance
        torch.testing.assert_close(
            kernel.pull_back(eps, ts)[i], score, rtol=0, atol=known * float(score.abs().max())
        )
        torch.testing.assert_close(kernel.mean(x, t)[i], kernel.mean(x, ts)[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONSTANT)
def test_kernels_of_constants_are_the_transitions_from_zero(name):
    sde, kind = CONSTANT[name]
    assert type(sde.noise_kernel) is kind
    matches_transitions(sde, [1e-3, 0.1, 0.5, 1.0, 4.0], 1e-13)


def test_kernels_of_rates_that_change_are_known_to_1e_10():
    matches_transitions(VARYING, [0.3], 1e-10)
    with pytest.raises(ValueError, match=r"known at times in \(0, 2\]"):
        VARYING.noise_kernel.spread(torch.zeros(1, 2), torch.tensor(2.1))


def test_ten_dimensions_by_eigenvectors_are_the_transition():
    g = torch.Generator().manual_seed(0)
    drift = 0.3 * torch.randn(10, 10, generator=g, dtype=F64) + torch.eye(10, dtype=F64)
    noise = torch.randn(10, 10, generator=g, dtype=F64) + 3 * torch.eye(10, dtype=F64)
    sde = sg.LinearSDE(drift, noise, torch.ones(10))
    phi, shift, covariance = sde.noise_kernel.law(torch.tensor([1e-4, 0.3, 4.0], dtype=F64))
    for i, t in enumerate((1e-4, 0.3, 4.0)):
        law = sde.transition(0.0, t)
        torch.testing.assert_close(phi[i, 0], law.matrix, rtol=0, atol=1e-12)
        torch.testing.assert_close(shift[i, 0], law.shift, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(covariance[i, 0], law.covariance, rtol=1e-11, atol=1e-12)


def test_phase_space_is_the_linear_sde_with_maxwells_velocities():
    for friction in (4.0, 0.3, 9.0):  # critical, under- and overdamped
        sde = sg.UnderdampedLangevin(sg.Quadratic(4.0, 0.3), friction, 0.7, mass=1.5)
        linear = sg.LinearSDE.of(sde, 2)
        for t in (1e-3, 0.4, 3.0):
            at = sde.noise_kernel.matrices(torch.tensor(t, dtype=F64))
            start = GaussianLaw.of([0.9, 0.0], [[0.0, 0.0], [0.0, 0.7 / 1.5]])
            law = linear.transition(0.0, t).after(start)
            root = at.root[0, 0]
            torch.testing.assert_close(root @ root.T, law.covariance, rtol=1e-11, atol=1e-13)
            mean = at.phi[0, 0, :, 0] * 0.9 + at.shift[0, 0]
            torch.testing.assert_close(mean, law.mean, rtol=0, atol=1e-13)


def test_coordinates_of_several_masses_have_blocks_of_their_own():
    sde = sg.UnderdampedLangevin(sg.Quadratic(2.0), [1.0, 3.0], 0.7, mass=[1.5, 0.4])
    x0, t = torch.tensor([[0.3, -0.8]], dtype=F64), torch.tensor(0.6, dtype=F64)
    whole = sde.noise_kernel.mean(x0, t)
    spread = sde.noise_kernel.spread(torch.ones(1, 2, 2, dtype=F64), t)
    for i, (friction, mass) in enumerate(((1.0, 1.5), (3.0, 0.4))):
        one = sg.UnderdampedLangevin(sg.Quadratic(2.0), friction, 0.7, mass=mass).noise_kernel
        mean = one.mean(x0[:, i : i + 1], t)[..., 0]
        torch.testing.assert_close(mean, whole[..., i], rtol=1e-14, atol=0)
        ones = torch.ones(1, 2, 1, dtype=F64)
        torch.testing.assert_close(one.spread(ones, t)[..., 0], spread[..., i], rtol=1e-14, atol=0)


def test_what_has_no_gaussian_kernel_says_so():
    for sde in (
        sg.Langevin(sg.DoubleWell()),
        sg.UnderdampedLangevin(sg.DoubleWell()),
        sg.UnderdampedLangevin(sg.Quadratic(), friction=lambda x: 1 + x**2),
        sg.UnderdampedLangevin(sg.Quadratic(), [1.0, 0.0]),
        sg.OrnsteinUhlenbeck(sigma=0.0),
        sg.LinearSDE(A, lambda t: t, time_range=(1.0, 2.0)),
    ):
        assert sde.noise_kernel is None
    singular = sg.LinearSDE([[1.0, 0.0], [0.0, 1.0]], [[1.0], [0.0]]).noise_kernel
    with pytest.raises(ValueError, match="Noise must reach every coordinate"):
        singular.spread(torch.zeros(1, 2), torch.tensor(1.0))


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_bases_are_orthonormal_and_have_the_laplacian(n):
    x = torch.randn(3, 2, n, n + 1, dtype=F64, generator=torch.Generator().manual_seed(0))
    pads = ((0, 0, 1, 1), (1, 1, 0, 0))
    rows, columns = (torch.nn.functional.pad(x, pad, mode="replicate") for pad in pads)
    walls = -rows.diff(n=2, dim=-2) - columns.diff(n=2, dim=-1)
    ring = 4 * x - sum(x.roll(shift, axis) for shift in (1, -1) for axis in (-1, -2))
    for basis, lap in ((Cosines(2), walls), (Waves(2), ring)):
        y = basis.to_modes(x)
        torch.testing.assert_close(basis.from_modes(y), x, rtol=0, atol=1e-13)
        torch.testing.assert_close(y.square().sum(), x.square().sum())
        there = basis.from_modes(basis.laplacian((n, n + 1)) * y)
        torch.testing.assert_close(there, lap, rtol=0, atol=1e-12)
    dct = fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho")
    torch.testing.assert_close(Cosines(2).to_modes(x), torch.from_numpy(dct), rtol=0, atol=1e-12)
    power = torch.from_numpy(fft.fft(x.numpy(), norm="ortho")).abs().square()
    mine = Waves(1).to_modes(x).square()
    assert float((power.sum(-1) - mine.sum(-1)).abs().max()) < 1e-11
    torch.testing.assert_close(mine[..., 0], power[..., 0])


def test_a_diagonal_kernel_of_one_number_is_the_scalar_one():
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    one = DiagonalKernel.of(vp.kernel)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for t in (torch.tensor(0.3, dtype=F64), torch.tensor([0.1, 0.2, 0.3, 0.4])):
        for name in ("mean", "spread", "whiten", "pull_back"):
            assert torch.equal(getattr(one, name)(x, t), getattr(vp.kernel, name)(x, t)), name
    assert isinstance(one.basis, Coordinates)
