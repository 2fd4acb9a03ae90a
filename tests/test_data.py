"""Planar laws have the moments they are scaled by; digits come back to the integers they are."""

import inspect
import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats

import sdegen as sg
from sdegen.core.noise import stream

PLANAR = [sg.data.two_moons, sg.data.eight_gaussians, sg.data.swiss_roll, sg.data.checkerboard]
Z = 5.5  # standard errors; two-sided false alarm 4e-8 for each comparison


@pytest.mark.parametrize("draw", PLANAR)
def test_planar_laws_have_mean_zero_and_unit_scale(draw):
    x = draw(200_000, rng=0, dtype=torch.float64)
    n = len(x)
    assert x.shape == (n, 2)
    assert (x.mean(0).abs() < Z * x.std(0) / math.sqrt(n)).all()
    square = x.square().sum(1)
    assert abs(float(square.mean()) - 2) < Z * float(square.std()) / math.sqrt(n)


@pytest.mark.parametrize("draw", PLANAR[:3])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_scale_counts_the_noise(draw, noise):
    x = draw(100_000, noise=noise, rng=1, dtype=torch.float64)
    square = x.square().sum(1)
    spread = float(square.std()) / math.sqrt(len(x))
    # without noise the eight Gaussians are eight points on a circle, with no spread at all
    assert abs(float(square.mean()) - 2) < Z * spread + 1e-12


@pytest.mark.parametrize("draw", PLANAR)
def test_draws_are_seeded_and_leave_global_state_alone(draw):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, c = draw(50, rng=3), draw(50, rng=3), draw(50, rng=4)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


def test_draws_go_where_they_are_sent(device, dtype):
    for draw in PLANAR:
        x = draw(7, rng=0, device=device, dtype=dtype)
        assert (x.device.type, x.dtype) == (device.type, dtype)
        # the same numbers everywhere: drawn on the CPU in float64
        assert torch.equal(x.cpu(), draw(7, rng=0, dtype=torch.float64).to(dtype))
        assert draw(7, rng=0).dtype == torch.get_default_dtype()


def test_moons_without_noise_lie_on_scikit_learns_moons():
    from sklearn.datasets import make_moons

    scale = math.sqrt(2 / (21 / 16 - 1 / math.pi))
    x = sg.data.two_moons(2_000, noise=0.0, rng=5, dtype=torch.float64) / scale
    x = x + torch.tensor([0.5, 0.25])
    theirs = torch.from_numpy(make_moons(20_000, noise=0.0)[0])
    # their points are π/10⁴ apart on each moon
    assert float(torch.cdist(x, theirs).amin(1).max()) < math.pi / 1e4
    assert float(torch.cdist(theirs[::10], x).amin(1).max()) < 0.05  # and no part is left out


def test_moons_are_independent_uniform_angles():
    scale = math.sqrt(2 / (21 / 16 - 1 / math.pi))
    x = sg.data.two_moons(20_000, noise=0.0, rng=6, dtype=torch.float64) / scale
    x = (x + torch.tensor([0.5, 0.25])).numpy()
    upper = np.abs(np.hypot(x[:, 0], x[:, 1]) - 1) < 1e-9
    lower = np.abs(np.hypot(x[:, 0] - 1, x[:, 1] - 0.5) - 1) < 1e-9
    assert (upper ^ lower).all()
    assert stats.binomtest(int(upper.sum()), len(x), 0.5).pvalue > 1e-5
    for angle in (np.arccos(x[upper, 0]), np.arccos(1 - x[lower, 0])):
        assert stats.kstest(angle / math.pi, "uniform").pvalue > 1e-5
    # evenly spaced angles would give √n·D near 0: a p-value of 1
    assert stats.kstest(np.arccos(x[upper, 0]) / math.pi, "uniform").pvalue < 1 - 1e-5


def test_eight_gaussians_are_eight_equal_gaussians():
    noise, n = 0.1, 40_000
    scale = 1 / math.sqrt(0.5 + noise**2)
    x = sg.data.eight_gaussians(n, noise=noise, rng=7, dtype=torch.float64) / scale
    k = torch.arange(8) * math.pi / 4
    centres = torch.stack([k.cos(), k.sin()], 1).double()
    which = torch.cdist(x, centres).argmin(1)
    counts = torch.bincount(which, minlength=8)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-5
    # neighbours are 0.765 = 7.65 noise apart: what crosses the middle, 1.3e-4 of all, hides here
    residual = ((x - centres[which]) / noise).flatten().numpy()
    assert stats.kstest(residual, "norm").statistic < 2.47 / math.sqrt(2 * n) + 1.3e-4


def test_checkerboard_is_uniform_on_its_dark_squares():
    x = sg.data.checkerboard(40_000, rng=8, dtype=torch.float64)
    squares = (x / math.sqrt(0.75) + 2).floor().long()
    assert (squares >= 0).all()
    assert (squares <= 3).all()
    assert (squares.sum(1) % 2 == 0).all()
    counts = torch.bincount(4 * squares[:, 0] + squares[:, 1], minlength=16)
    assert stats.chisquare(counts[counts > 0].numpy(), [5_000] * 8).pvalue > 1e-5
    for part in ((x / math.sqrt(0.75) + 2) % 1).T:
        assert stats.kstest(part.numpy(), "uniform").pvalue > 1e-5


def test_swiss_roll_without_noise_is_a_spiral():
    scale = math.sqrt(2 / (39 * math.pi**2 / 4 - 4 - 4 / (9 * math.pi**2)))
    x = sg.data.swiss_roll(20_000, noise=0.0, rng=9, dtype=torch.float64) / scale
    x = x + torch.tensor([2.0, 2 / (3 * math.pi)], dtype=torch.float64)
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    turns = (radius - angle) / (2 * math.pi)
    assert float((turns - turns.round()).abs().max()) < 1e-12  # θ = |x|, up to whole turns
    assert stats.kstest((radius / math.pi - 1.5).numpy() / 3, "uniform").pvalue > 1e-5


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"n": 0}, ValueError, "n must be ≥ 1, but is 0"),
        ({"n": 2.0}, TypeError, "n must be an int, but is float"),
        ({"n": True}, TypeError, "n must be an int, but is bool"),
        ({"n": 5, "noise": -0.1}, ValueError, r"noise must be finite and ≥ 0, but is -0\.1"),
        (
            {"n": 5, "noise": math.nan},
            ValueError,
            "noise must be finite and ≥ 0, but is nan",
        ),
    ],
)
def test_bad_requests(kwargs, error, message):
    draw = inspect.unwrap(sg.data.two_moons)  # as a user has it, without the suite's type checks
    with pytest.raises(error, match=message):
        draw(**kwargs)


@pytest.fixture(scope="module")
def digits():
    return sg.data.digits(dtype=torch.float64)


def test_digits_are_all_images_once_and_come_back_to_integers(digits):
    from sklearn.datasets import load_digits

    assert [len(s) for s in (digits.train, digits.validation, digits.test)] == [718, 180, 899]
    ours = sg.data.to_levels(torch.cat([digits.train, digits.validation, digits.test]))
    assert ours.shape == (1797, 1, 8, 8)
    theirs = torch.from_numpy(load_digits().images).long().flatten(1)
    assert sorted(map(tuple, ours.flatten(1).tolist())) == sorted(map(tuple, theirs.tolist()))


def test_dequantisation_is_uniform_within_the_bin(digits):
    x = torch.cat([digits.train, digits.test])
    assert -1 <= float(x.min()) < float(x.max()) < 1
    u = (x + 1) / digits.bin_width - sg.data.to_levels(x)
    assert stats.kstest(u.flatten().numpy(), "uniform").pvalue > 1e-5


def test_digits_in_float32_keep_their_integers(digits):
    single = sg.data.digits(dtype=torch.float32)
    # a u within float32's rounding of the next integer may cross over: 17·6e-8 of the pixels
    moved = sg.data.to_levels(single.train) != sg.data.to_levels(digits.train)
    assert int(moved.sum()) <= 2
    assert torch.equal(single.train, digits.train.float())


def test_new_noise_leaves_the_integers(digits):
    again = sg.data.redequantise(digits.train, stream(3, "test"))
    assert torch.equal(sg.data.to_levels(again), sg.data.to_levels(digits.train))
    old, new = ((x + 1) / digits.bin_width % 1 for x in (digits.train, again))
    assert stats.kstest(new.flatten().numpy(), "uniform").pvalue > 1e-5
    n = old.numel()  # uncorrelated: r is normal with deviation 1/√n
    r = float(torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1])
    assert abs(r) < 4.5 / math.sqrt(n)


def test_split_is_fixed_by_the_seed_and_mixes(digits):
    again, other = sg.data.digits(rng=0, dtype=torch.float64), sg.data.digits(rng=1)
    assert digits.seed == 0
    assert torch.equal(digits.test, again.test)
    assert not torch.equal(sg.data.to_levels(digits.test), sg.data.to_levels(other.test))
    generator = torch.Generator().manual_seed(5)
    drawn = sg.data.digits(rng=generator)
    assert torch.equal(drawn.test, sg.data.digits(rng=drawn.seed).test)
    # a split by the file's order is a split by writer: the halves' means then differ 3 times more
    a, b = digits.train.mean(0), digits.test.mean(0)
    error = (digits.train.var(0) / len(digits.train) + digits.test.var(0) / 899).sqrt()
    assert float(((a - b) / error.clamp(min=1e-9)).square().mean()) < 2


def test_bits_per_dimension_of_known_models(digits):
    # a uniform density on [−1, 1]⁶⁴ knows nothing: log₂ 17 bits for one of 17 values
    nats = torch.full((3,), 64 * math.log(0.5), dtype=torch.float64)
    bits = sg.metrics.bits_per_dim(nats, 64, bin_width=digits.bin_width)
    assert torch.allclose(bits, torch.full_like(bits, math.log2(17)), rtol=1e-14)
    # a density that is the histogram of pixel values, flat within each bin, needs its entropy
    levels = sg.data.to_levels(digits.train).flatten()
    share = torch.bincount(levels, minlength=17).double() / len(levels)
    log_prob = (share / digits.bin_width).log()[sg.data.to_levels(digits.train)].flatten(1).sum(1)
    entropy = stats.entropy(share.numpy(), base=2)
    bits = sg.metrics.bits_per_dim(log_prob, 64, bin_width=digits.bin_width)
    assert float(bits.mean()) == pytest.approx(entropy, rel=1e-12)


@pytest.mark.parametrize("validation", [0, 898, -3])
def test_digits_need_something_to_train_on(validation):
    with pytest.raises(ValueError, match=rf"1 ≤ validation < 898, but is {validation}"):
        sg.data.digits(validation=validation)


def test_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'sdegen\[data\]'"):
        sg.data.digits()


@pytest.mark.parametrize("levels", [256, 17])
def test_bits_of_uniform_integers_are_log2_of_their_number(levels):
    """p = ½ on [−1, 1)ᵈ: every value has the same bin, and Jensen's bound is met."""
    k = torch.arange(levels).repeat(3, 1)
    x = sg.data.dequantise(k, levels, rng=0, dtype=torch.float64)
    assert torch.equal(((x + 1) * levels / 2).floor().long(), k)
    log_prob = torch.full((3,), -levels * math.log(2.0), dtype=torch.float64)
    bits = sg.metrics.bits_per_dim(log_prob, levels, bin_width=2 / levels)
    assert bits.tolist() == pytest.approx([math.log2(levels)] * 3, abs=1e-12)


def test_bits_of_a_known_law_of_integers():
    """A density that is constant in each bin needs the entropy; a smoother one needs more.

    Four values with probabilities ½, ¼, ⅛, ⅛: 1.75 bits.
    """
    p = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    k = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])[:, None]
    x = sg.data.dequantise(k, 4, rng=1, dtype=torch.float64)
    width = 2 / 4
    exact = torch.log(p[((x[:, 0] + 1) / width).floor().long()] / width)  # a histogram's density
    bits = sg.metrics.bits_per_dim(exact, 1, bin_width=width)
    assert float(bits.mean()) == pytest.approx(1.75, abs=1e-12)
    # the density 1 − x on [−1, 1)/2, by a quadrature over u: Jensen's bound is strict
    u = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    inside = (torch.arange(4)[:, None] + u) * width - 1
    smooth = sg.metrics.bits_per_dim(
        torch.log((1 - inside) / 2).flatten(), 1, bin_width=width
    ).reshape(4, 1000)
    masses = ((1 - inside) / 2).mean(1) * width
    assert float(p @ smooth.mean(1)) > float(p @ -masses.log2()) > 1.75


def test_dequantisation_is_uniform_and_seeded():
    """Kolmogorov-Smirnov at n = 20,000: √n·D < 2.47 at α = 1e-5."""
    k = torch.zeros(20_000, 1, dtype=torch.int64)
    x = sg.data.dequantise(k, rng=2, dtype=torch.float64)[:, 0].sort().values
    u = (x + 1) * 128
    ranks = torch.arange(1, 20_001) / 20_000
    assert float((ranks - u).abs().max()) * math.sqrt(20_000) < 2.47
    again = sg.data.dequantise(k, rng=2, dtype=torch.float64)[:, 0].sort().values
    assert torch.equal(x, again)
    assert sg.data.dequantise(k).dtype == torch.get_default_dtype()


def test_what_is_no_integer_is_not_dequantised(as_user):
    with pytest.raises(TypeError, match=r"values must be integers, but have dtype torch\.float32"):
        sg.data.dequantise(torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"in 0 … 16, but reach from 0 to 17; pass levels="):
        sg.data.dequantise(torch.tensor([[0, 17]]), 17)


def test_digits_keep_their_labels():
    """Each image is scikit-learn's of that label, wherever the split put it."""
    datasets = pytest.importorskip("sklearn.datasets")
    scans = datasets.load_digits()
    whose = {
        image.tobytes(): label for image, label in zip(scans.images, scans.target, strict=True)
    }
    digits = sg.data.digits(validation=100)
    for part in ("train", "validation", "test"):
        images, labels = getattr(digits, part), getattr(digits, f"{part}_labels")
        assert labels.shape == (len(images),)
        levels = sg.data.to_levels(images)[:, 0].double().numpy()
        assert [whose[image.tobytes()] for image in levels] == labels.tolist()
