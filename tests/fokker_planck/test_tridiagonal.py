import numpy as np
import pytest
import torch

from sdegen.fokker_planck.discretization import tridiagonal


def system(n, *, ring, dtype=torch.float64, batch=()):
    generator = torch.Generator().manual_seed(3)
    bands = torch.rand(*batch, 3, n, generator=generator, dtype=torch.float64).to(dtype)
    bands[..., 1, :] += 2.5
    if dtype.is_complex:
        bands = bands + 0.3j * bands.flip(-1)
    if not ring:
        bands[..., 0, 0] = 0
        bands[..., 2, -1] = 0
    rhs = torch.rand(*batch, n, generator=generator, dtype=torch.float64).to(dtype)
    return bands, rhs


def dense(bands):
    n = bands.shape[-1]
    a = np.zeros((n, n), dtype=bands.numpy().dtype)
    for i in range(n):
        a[i, (i - 1) % n] += bands[0, i]
        a[i, i] += bands[1, i]
        a[i, (i + 1) % n] += bands[2, i]
    return a


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_against_a_dense_solve(ring, dtype):
    bands, rhs = system(12, ring=ring, dtype=dtype)
    a = dense(bands)
    np.testing.assert_allclose(
        tridiagonal.solve(bands, rhs).numpy(), np.linalg.solve(a, rhs.numpy()), rtol=1e-12
    )
    np.testing.assert_allclose(
        tridiagonal.multiply(bands, rhs).numpy(), a @ rhs.numpy(), rtol=1e-13
    )
    np.testing.assert_allclose(dense(tridiagonal.transposed(bands)), a.T, rtol=0)


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients(ring, dtype):
    bands, rhs = system(6, ring=True, dtype=dtype, batch=(2,))
    mask = torch.ones_like(bands)
    if not ring:
        mask[..., 0, 0] = 0
        mask[..., 2, -1] = 0
    assert torch.autograd.gradcheck(
        lambda a, b: tridiagonal.solve(a * mask, b), (bands.requires_grad_(), rhs.requires_grad_())
    )


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_systems_side_by_side_do_not_touch(ring, dtype):
    bands, rhs = system(9, ring=ring, dtype=dtype, batch=(4,))
    together = tridiagonal.solve(bands, rhs)
    for got, a, b in zip(together, bands, rhs, strict=True):
        np.testing.assert_allclose(got, np.linalg.solve(dense(a), b), rtol=1e-12)
        assert torch.equal(got, tridiagonal.solve(a, b))


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_factors_for_many_right_sides(ring, dtype):
    bands, rhs = system(9, ring=ring, dtype=dtype, batch=(4,))
    factors = tridiagonal.Factors(np.ascontiguousarray(bands.movedim(1, 0)))
    for load in (rhs, rhs.flip(0)):
        got = factors.solve(load.numpy().copy())
        for y, a, b in zip(got, bands, load, strict=True):
            np.testing.assert_allclose(y, np.linalg.solve(dense(a), b), rtol=1e-12)
