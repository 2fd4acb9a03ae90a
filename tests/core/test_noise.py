"""Streams: distinct, reproducible, Gaussian, and deaf and dumb to all global state."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sdegen.core.noise import Stream, Streams, _scatter, box_muller, normal_like, seed_of, stream

WORDS = st.integers(0, 2**32 - 1)


def _unscatter(n):
    """The inverse of the scrambling, step by step backwards."""
    n ^= n >> 16
    n = (n * pow(0xC2B2AE35, -1, 2**32)) & 0xFFFFFFFF
    n ^= (n >> 13) ^ (n >> 26)
    n = (n * pow(0x85EBCA6B, -1, 2**32)) & 0xFFFFFFFF
    return n ^ (n >> 16)


@given(WORDS)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_the_scrambling_of_block_numbers_is_one_to_one(n):
    assert 0 <= _scatter(n) < 2**32
    assert _unscatter(_scatter(n)) == n


def test_no_two_blocks_of_a_run_share_the_bits_that_torch_keeps():
    # of 20,000 random 32-bit numbers two agree with probability 5 %; of these, never
    streams = Streams(seed=3, purpose="dynamics")
    low = {streams.block(i)._key & 0xFFFFFFFF for i in range(20_000)}
    assert len(low) == 20_000
    assert streams.block(0)._key != streams.block(2**31)._key  # nor one with a far one


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_streams_differ_over_seed_purpose_and_block(dtype):
    draws = [
        Streams(seed, purpose).block(block).normal((64,), dtype=dtype)
        for seed in (0, 1, 2**32, 2**63 - 1)
        for purpose in ("dynamics", "prior")
        for block in (0, 1, 2, 2**32 - 1)
    ]
    table = torch.stack(draws)
    assert len(torch.unique(table)) > 0.999 * table.numel()
    # independent rows of 64: correlations are N(0, 1/64); 496 pairs, false alarm 1e-5 in all
    r = torch.corrcoef(table.double()).triu(1).abs().max()
    assert float(r) < stats.norm.isf(1e-5 / 496 / 2) / 8 * 1.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stream_goes_on_and_never_repeats_itself(dtype):
    a, b = Stream(5), Stream(5)
    first, second = a.normal((1000,), dtype=dtype), a.normal((1000,), dtype=dtype)
    assert torch.equal(first, b.normal((1000,), dtype=dtype))
    assert torch.equal(second, b.normal((1000,), dtype=dtype))
    assert not torch.isin(second, first).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_are_standard_normal(dtype, device):
    n = 100_000
    x = Stream(11).normal((n,), dtype=dtype, device=device).double().cpu().numpy()
    # √n D at a false alarm of 1e-5; variance and fourth moment see what KS does not
    assert math.sqrt(n) * stats.kstest(x, "norm").statistic < 2.470
    assert abs(x.var() - 1) < 4.42 * math.sqrt(2 / n)
    assert abs((x**4).mean() - 3) < 4.42 * math.sqrt(96 / n)
    assert abs((x[1:] * x[:-1]).mean()) < 4.42 / math.sqrt(n)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (16, 1), (100, 3), (4096, 1), (5000, 1), (70_001, 1)])
def test_normals_of_many_steps_are_those_step_by_step(shape, dtype):
    """However many are drawn in one call: what compiled runs and single steps rely on."""
    many = Stream(5).normals(shape, dtype=dtype).take(40)
    some = Stream(5).normals(shape, dtype=dtype)
    pieces = torch.cat([some.take(n) for n in (1, 2, 16, 5, 16)])
    single = Stream(5).normals(shape, dtype=dtype).each()
    again = Stream(5).normals(shape, dtype=dtype).each(recycled=True)
    assert many.shape == (40, *shape)
    assert torch.equal(pieces, many)
    assert torch.equal(torch.stack([next(single) for _ in range(40)]), many)
    assert torch.equal(torch.stack([next(again).clone() for _ in range(40)]), many)
    if math.prod(shape) % 16 == 0 or dtype == torch.float64:
        plain = Stream(5)
        draws = [plain.normal(shape, dtype=dtype) for _ in range(40)]
        assert torch.equal(torch.stack(draws), many)


def test_a_draw_that_is_kept_is_not_written_over():
    draws = Stream(1).normals((100, 1), dtype=torch.float32).each()
    first = next(draws)
    before = first.clone()
    for _ in range(500):
        next(draws)
    assert torch.equal(first, before)


def test_recycled_memory_holds_a_draw_until_one_more_step_has_been_drawn():
    draws = Stream(1).normals((100, 1), dtype=torch.float32).each(recycled=True)
    fresh = Stream(1).normals((100, 1), dtype=torch.float32).each()
    last = next(draws), next(fresh)
    for _ in range(500):
        now = next(draws), next(fresh)
        assert torch.equal(*now)
        assert torch.equal(*last)
        last = now


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_box_muller_makes_two_independent_normals_of_two_integers(dtype):
    n = 100_000
    width = torch.int32 if dtype == torch.float32 else torch.int64
    bits = Stream(12).bits((2, n), dtype=width)
    pair = torch.stack(box_muller(bits, dtype))
    assert pair.dtype == dtype
    z, w = pair.double().numpy()
    # false alarms of 1e-5 each, as above
    for x in (z, w):
        assert math.sqrt(n) * stats.kstest(x, "norm").statistic < 2.470
        assert abs(x.var() - 1) < 4.42 * math.sqrt(2 / n)
        assert abs((x**4).mean() - 3) < 4.42 * math.sqrt(96 / n)
    assert abs((z * w).mean()) < 4.42 / math.sqrt(n)
    assert abs((z**2 * w**2).mean() - 1) < 4.42 * math.sqrt(8 / n)
    # and written out, in double precision
    k = bits.double() * 2.0 ** (1 - torch.iinfo(width).bits)
    half = 0.5 * 2.0 ** (1 - torch.iinfo(width).bits)
    radius = torch.sqrt(-2 * torch.log(k[0].abs() + half))
    exact = torch.stack([radius * torch.cos(torch.pi * k[1]), radius * torch.sin(torch.pi * k[1])])
    torch.testing.assert_close(pair.double(), exact, rtol=0, atol=40 * torch.finfo(dtype).eps)


def test_box_muller_is_finite_where_its_integers_end():
    low = -(2**31)
    ends = torch.tensor([[0, low, 2**31 - 1, 1], [low, 0, 2**31 - 1, 2**30]], dtype=torch.int32)
    z, w = box_muller(ends, torch.float32)
    # u = 2^-32 is the smallest: |z| = (2 · 32 log 2)^½ = 6.66
    exact = [-math.sqrt(64 * math.log(2)), 0.0, 0.0, 0.0]
    torch.testing.assert_close(z, torch.tensor(exact), rtol=1e-6, atol=1e-3)
    last = math.sqrt(-2 * math.log(1.5 / 2**31))
    torch.testing.assert_close(w, torch.tensor([0.0, 0.0, 0.0, last]), rtol=1e-6, atol=1e-3)


def test_normals_follow_the_state(device):
    x = torch.zeros(3, 2, dtype=torch.float32, device=device)
    z = normal_like(x, Stream(0))
    assert (z.shape, z.dtype, z.device) == (x.shape, x.dtype, x.device)


def test_an_int_is_the_seed():
    assert seed_of(0) == 0
    assert seed_of(2**63 - 1) == 2**63 - 1


def test_a_numpy_int_is_a_seed(as_user):
    assert seed_of(np.int64(7)) == 7


def test_a_generator_is_drawn_from_once():
    one, other = (torch.Generator().manual_seed(4) for _ in range(2))
    first, second = seed_of(one), seed_of(one)
    assert first == seed_of(other)
    assert first != second
    assert 0 <= first < 2**63
    seed_of(other)
    assert torch.equal(one.get_state(), other.get_state())


def test_none_is_fresh_entropy():
    seeds = [seed_of(None) for _ in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) > 2**55  # all 63 bits are in use: 100 seeds below 2⁵⁵ have chance 256⁻¹⁰⁰


@pytest.mark.parametrize(("rng", "kind"), [(True, "bool"), (1.0, "float"), ("0", "str")])
def test_what_is_no_rng_is_refused(rng, kind, as_user):
    with pytest.raises(TypeError, match=f"rng must be an int, .* but is {kind}; pass rng=0"):
        seed_of(rng)


@pytest.mark.parametrize("rng", [-1, 2**63])
def test_a_seed_out_of_range_is_refused(rng):
    with pytest.raises(ValueError, match=rf"rng must be a seed in \[0, 2\*\*63\), but is {rng}"):
        seed_of(rng)


def test_drawing_leaves_global_state_alone():
    numpy_state = np.random.get_state()[1].copy()  # noqa: NPY002 (the state under watch)
    torch_state = torch.get_rng_state()
    for dtype in (torch.float32, torch.float64):
        stream(None, "test").normal((1000,), dtype=dtype)
        stream(torch.Generator().manual_seed(0), "test").normal((1000,), dtype=dtype)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_global_seeds_do_not_reach_the_streams():
    first = stream(0, "test").normal((10,))
    state = torch.get_rng_state()
    try:
        torch.random.default_generator.manual_seed(123)
        assert torch.equal(first, stream(0, "test").normal((10,)))
    finally:
        torch.set_rng_state(state)
