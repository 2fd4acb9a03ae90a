"""Arrays and trajectories are taken over to the bits, or refused by name with what to do."""

import math

import numpy as np
import pytest
import torch

import sdegen as sg

F64 = torch.float64


def walk(*shape, dtype=F64):
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    return z.cumsum(0).to(dtype)


class Foreign:
    """An array of another library, which shares its memory by DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("kind", ["torch", "numpy", "dlpack", "backwards", "big-endian", "fixed"])
def test_arrays_keep_their_bits(kind, dtype):
    x = walk(9, 4, 2, dtype=dtype)
    array = x.numpy().copy()
    array.flags.writeable = kind != "fixed"
    came = {
        "torch": x,
        "dlpack": Foreign(array),
        "backwards": np.flip(np.flip(array, 0).copy(), 0),
        "big-endian": array.astype(array.dtype.newbyteorder(">")),
    }.get(kind, array)
    stored = sg.read_states(came, dt=0.25)
    assert stored.shape == (9, 4, 2)
    assert stored.dtype == stored.precision == dtype
    assert torch.equal(stored.block(0, 9), x)
    assert torch.equal(stored.block(3, 5), x[3:5])
    assert stored.times.tolist() == [0.25 * k for k in range(9)]
    assert stored.dt == 0.25


def test_an_array_is_not_copied():
    array = np.zeros((5, 2, 1))
    stored = sg.read_states(array, dt=1.0)
    array[4] = 7.0
    assert float(stored.block(4, 5).sum()) == 14.0


@pytest.mark.parametrize(
    ("layout", "axes"),
    [
        ("time, batch, coordinate", (0, 1, 2)),
        ("batch, time, coordinate", (1, 0, 2)),
        ("coordinate, trajectory, time", (2, 1, 0)),
    ],
)
def test_axes_are_where_the_layout_says(layout, axes):
    x = walk(7, 3, 2)
    assert torch.equal(sg.read_states(x.permute(axes), dt=1.0, layout=layout).block(0, 7), x)


def test_one_trajectory_and_one_coordinate():
    x = walk(7, 3)
    assert torch.equal(sg.read_states(x[:, 0], dt=1.0).block(0, 7), x[:, :1, None])
    rows = sg.read_states(x, dt=1.0, layout="time, batch")
    assert torch.equal(rows.block(0, 7), x[:, :, None])
    one = sg.read_states(x.T, dt=1.0, layout="coordinate, time")
    assert torch.equal(one.block(0, 7), x[:, None, :])


def test_two_axes_are_never_guessed():
    with pytest.raises(ValueError, match="either 3 trajectories of one coordinate or one"):
        sg.read_states(walk(7, 3), dt=1.0)


def test_positions_and_velocities():
    x, v = walk(7, 3, 2), walk(7, 3, 2) + 1
    beside = sg.read_states(x, velocities=v, dt=1.0)
    stacked = sg.read_states(torch.stack([x, v], 2), phase_space=True, dt=1.0)
    for stored in (beside, stacked):
        assert stored.phase_space
        assert (stored.event, stored.place) == ((2, 2), (2,))
        assert torch.equal(stored.block(2, 4), torch.stack([x, v], 2)[2:4])


def test_units_multiply_lengths_and_velocities():
    x, v = walk(7, 3, 2), walk(7, 3, 2) + 1
    units = {"length": 0.5, "time": 4.0}
    stored = sg.read_states(x, velocities=v, dt=1.0, units=units)
    assert torch.equal(stored.block(0, 7), torch.stack([x / 2, v / 8], 2))
    units["velocity"] = 2.0
    stored = sg.read_states(x, velocities=v, dt=1.0, units=units)
    assert torch.equal(stored.block(0, 7), torch.stack([x / 2, v * 2], 2))
    assert stored.dt == 1.0  # what is said is in units of the SDE


@pytest.mark.parametrize(("dtype", "bits"), [(torch.float16, 11), (torch.bfloat16, 8)])
def test_half_precision_is_taken_with_its_rounding(dtype, bits):
    x = walk(50, 4, 2)
    stored = sg.read_states(x.to(dtype), dt=1.0)
    assert stored.dtype == torch.float32
    assert stored.precision == dtype
    kept = stored.block(0, 50)
    assert torch.equal(kept, x.to(dtype).float())
    half = stored.rounding_at(kept)
    # by definition: half of the distance to the next number with as many bits
    exact = 2.0 ** (kept.double().abs().log2().floor() - bits)
    assert torch.equal(half, exact)
    error = (kept.double() - x).abs()
    assert bool((error <= half).all())
    assert float((error / half).mean()) == pytest.approx(0.5, abs=0.1)  # uniform: 0.03 at most
    assert float(stored.rounding_at(torch.zeros(2))[0]) == torch.finfo(dtype).tiny * 2.0**-bits


def test_a_rounding_that_is_said_is_that_of_the_law():
    x = walk(50, 4, 2)
    stored = sg.read_states((x * 100).round() / 100, dt=1.0, rounding=0.005)
    assert torch.equal(stored.rounding_at(x), torch.full_like(x, 0.005))
    digits = sg.StoredStates(torch.arange(50), x, digits=3, unit=10.0)
    places = torch.tensor([0.0, 10.0, 99.9, -123.0, 9999.0], dtype=F64)[:, None]
    found = digits.rounding_at(places.expand(5, 2))[:, 0]
    assert torch.allclose(found, torch.tensor([0, 0.05, 0.05, 0.5, 5.0], dtype=F64), 1e-12, 1e-300)


def test_coordinates_on_a_ring_unwrap():
    x = 0.2 * walk(400, 5, 2)  # half a period is more than six standard deviations of a move
    periods = torch.tensor([2.5, 0.0], dtype=F64)
    folded = x.clone()
    folded[..., 0] = x[..., 0].remainder(2.5)
    assert float(x[..., 0].abs().max()) > 2.5
    stored = sg.read_states(folded, dt=1.0, periods=periods)
    assert stored.wrapped
    assert torch.equal(stored.block(0, 400), folded)
    flat = stored.block(0, 400, unwrapped=True)
    assert torch.allclose(flat - flat[0], x - x[0], atol=1e-12)
    later = stored.block(100, 300, unwrapped=True)
    assert torch.equal(later[0], folded[100])
    assert torch.allclose(later.diff(dim=0), x[100:300].diff(dim=0), atol=1e-12)
    both = sg.read_states(folded, velocities=x, dt=1.0, periods=periods).block(
        0, 400, unwrapped=True
    )
    assert torch.equal(both, torch.stack([flat, x], 2))
    along = sg.read_states(x, dt=1.0, periods=periods, wrapped=False)
    assert torch.equal(along.block(0, 400, unwrapped=True), x)


def test_a_trajectory_is_taken_over():
    path = sg.simulate(sg.OrnsteinUhlenbeck(), torch.zeros(6, 2), torch.linspace(1, 2, 11), rng=0)
    stored = sg.read_states(path)
    assert torch.equal(stored.block(0, 11), path.states)
    assert torch.equal(stored.times, path.times)
    assert not stored.phase_space
    assert stored.lost == 0
    assert sg.read_states(stored) is stored


def test_lost_trajectories_are_left_out_and_said():
    path = sg.simulate(
        sg.ItoProcess(lambda x: x**3, 0.1),
        torch.tensor([[0.0], [50.0], [0.1]], dtype=F64),
        torch.linspace(0, 1, 101),
        rng=0,
        on_nonfinite="freeze",
    )
    assert path.nonfinite.tolist() == [False, True, False]
    stored = sg.read_states(path)
    assert torch.equal(stored.block(0, 101), path.states[:, [0, 2]])
    assert stored.lost == 1
    assert "without 1 that were lost" in stored.source


def test_turns_that_were_counted_are_no_guess():
    sde = sg.BrownianMotion(1.0)
    ring = sg.Periodic(0.0, 1.0)
    times = torch.linspace(0, 10, 11)  # a step is three periods wide
    path = sg.simulate(sde, torch.full((6, 1), 0.5), times, boundary=ring, rng=0)
    stored = sg.read_states(path)
    assert stored.periods.tolist() == [1.0]
    assert not stored.wrapped
    assert stored.precision == torch.float32
    assert torch.equal(stored.block(0, 11), path.unwrapped)


def test_a_phase_space_on_a_ring():
    sde = sg.UnderdampedLangevin(lambda x: 0 * x[:, 0], 0.5, 1.0)
    start = sde.state(torch.zeros(4, 1, dtype=F64), torch.ones(4, 1, dtype=F64))
    path = sg.simulate(
        sde, start, torch.linspace(0, 9, 91), boundary=sg.Periodic(-1.0, 1.0), rng=0
    )
    stored = sg.read_states(path)
    assert stored.phase_space
    assert stored.periods.tolist() == [2.0]
    assert torch.equal(stored.block(0, 91), path.unwrapped)


def test_times_that_run_backwards():
    times = torch.linspace(1, 0, 6, dtype=F64)
    stored = sg.read_states(walk(6, 2, 1), times=times)
    assert stored.dt == pytest.approx(-0.2, rel=1e-12)
    assert torch.equal(stored.times, times)


def test_uneven_times_have_no_dt():
    stored = sg.read_states(walk(6, 2, 1), times=[0, 1, 2, 3, 5, 6])
    with pytest.raises(ValueError, match=r"times\[4\] − times\[3\] = 2, and most intervals are 1"):
        _ = stored.dt


def test_times_in_float32_are_even():
    times = torch.arange(0, 1001, dtype=torch.float32) * 0.1
    assert sg.read_states(walk(1001, 1, 1), times=times, dt=0.1).dt == pytest.approx(0.1, 1e-6)


def test_xarray_says_its_axes_and_times():
    xarray = pytest.importorskip("xarray")
    x = walk(7, 3, 2)
    array = xarray.DataArray(
        x.permute(1, 0, 2).numpy(),
        dims=("trajectory", "time", "coordinate"),
        coords={"time": [0.5 * k for k in range(7)], "coordinate": ["x", "y"]},
    )
    stored = sg.read_states(array)
    assert torch.equal(stored.block(0, 7), x)
    assert stored.dt == 0.5
    assert stored.columns == ("x", "y")
    renamed = array.rename(time="t")
    said = {"layout": "batch, time, coordinate", "dt": 1.0, "units": {"time": 2.0}}
    plain = sg.read_states(renamed, **said)
    assert torch.equal(plain.block(2, 4), x[2:4])


def test_a_nan_is_named():
    x = walk(7, 3, 2)
    x[4, 1, 1] = math.nan
    with pytest.raises(ValueError, match="nan in frame 4, trajectory 1, coordinate 1"):
        sg.read_states(x, dt=1.0)
    x[4, 1, 1] = -math.inf
    with pytest.raises(ValueError, match=r"in 1 of 3 trajectories.* -inf in frame 4"):
        sg.read_states(x, dt=1.0)
    large = torch.full((3, 2, 4), 3e38)  # finite, and their sum is not
    assert sg.read_states(large, dt=1.0).shape == (3, 2, 4)


_X = walk(6, 2, 1)
BAD = {
    "integers": (lambda: sg.read_states(_X.long(), dt=1.0), TypeError, "rounding=0.5"),
    "complex": (lambda: sg.read_states(_X + 1j, dt=1.0), TypeError, "view_as_real"),
    "objects": (
        lambda: sg.read_states(np.full((6, 2, 1), None), dt=1.0), TypeError, "objects; pass"),
    "text": (lambda: sg.read_states(np.full((6, 2, 1), "a"), dt=1.0), TypeError, "text; pass"),
    "dates": (
        lambda: sg.read_states(np.zeros((6, 2, 1), "M8[s]"), dt=1.0), TypeError, "dates; pass"),
    "long doubles": (
        lambda: sg.read_states(np.zeros((6, 2, 1), np.longdouble), dt=1.0), TypeError,
        "astype"),
    "masked": (
        lambda: sg.read_states(np.ma.masked_greater(_X.numpy(), 0), dt=1.0), ValueError,
        "masked numbers"),
    "a gradient": (
        lambda: sg.read_states(_X.clone().requires_grad_(), dt=1.0), TypeError, "detach"),
    "no array": (lambda: sg.read_states(3.0, dt=1.0), TypeError, "source must be"),
    "a number": (lambda: sg.read_states(np.array(3.0), dt=1.0), ValueError, "one number"),
    "one frame": (lambda: sg.read_states(_X[:1], dt=1.0), ValueError, "there are 1 frames"),
    "no rows": (lambda: sg.read_states(_X[:, :0], dt=1.0), ValueError, "are empty"),
    "no times": (lambda: sg.read_states(_X), ValueError, "pass dt="),
    "fewer times": (
        lambda: sg.read_states(_X, times=[0, 1]), ValueError, "2 entries, but there are 6"),
    "times that contradict": (
        lambda: sg.read_states(_X, times=torch.arange(6), dt=0.1), ValueError,
        "dt = 0.1 contradicts the times: from 0 to 1 they advance by 1"),
    "one interval": (
        lambda: sg.read_states(_X, times=[0, 1, 2, 3, 5, 6], dt=1.0), ValueError,
        "from 3 to 4 they advance by 2"),
    "dt of the other sense": (lambda: sg.read_states(_X, dt=-1.0), ValueError, "runs backwards"),
    "a name of an axis too few": (
        lambda: sg.read_states(_X, dt=1.0, layout="time, batch"), ValueError, "names 2 axes"),
    "no time axis": (
        lambda: sg.read_states(_X, dt=1.0, layout="a, batch, b"), ValueError, "'time' once"),
    "a layout of numbers": (
        lambda: sg.read_states(_X, dt=1.0, layout=(0, 1, 2)), TypeError, "must be a text"),
    "no velocities": (
        lambda: sg.read_states(_X, dt=1.0, phase_space=True), ValueError, r"\(T, batch, 2, \*ev"),
    "other velocities": (
        lambda: sg.read_states(_X, velocities=_X[1:], dt=1.0), ValueError, "velocities have"),
    "velocities in another dtype": (
        lambda: sg.read_states(_X, velocities=_X.float(), dt=1.0), TypeError, "in one"),
    "velocities of no array": (
        lambda: sg.read_states(_X, velocities=3.0, dt=1.0), TypeError, "like that of positions"),
    "a unit of nothing": (
        lambda: sg.read_states(_X, dt=1.0, units={"mass": 2.0}), ValueError, "'mass' is none"),
    "no units": (lambda: sg.read_states(_X, dt=1.0, units=2.0), TypeError, "a dict of factors"),
    "a unit of zero": (
        lambda: sg.read_states(_X, dt=1.0, units={"time": 0.0}), ValueError, "> 0"),
    "periods of others": (
        lambda: sg.read_states(_X, dt=1.0, periods=[1.0, 2.0]), ValueError, "periods has shape"),
    "a negative period": (
        lambda: sg.read_states(_X, dt=1.0, periods=-1.0), ValueError, "finite and ≥ 0"),
    "folded into nothing": (
        lambda: sg.read_states(_X, dt=1.0, wrapped=True), ValueError, "pass periods="),
    "fixed by numbers": (
        lambda: sg.read_states(_X, dt=1.0, fixed=[0.5]), TypeError, "True or False"),
    "times of a Trajectory": (
        lambda: sg.read_states(
            sg.simulate(sg.BrownianMotion(), _X[0], [0.0, 1.0], rng=0), dt=1.0), ValueError,
        "leave dt= out"),
    "StoredStates with a layout": (
        lambda: sg.read_states(sg.read_states(_X, dt=1.0), layout="time"), ValueError,
        "leave layout= out"),
    "frames that are not there": (
        lambda: sg.read_states(_X, dt=1.0).block(2, 7), ValueError, "last ≤ 6"),
    "absorbed": (
        lambda: sg.read_states(sg.simulate(
            sg.BrownianMotion(), torch.full((9, 1), 0.5), torch.linspace(0, 1, 50), rng=0,
            boundary=sg.Absorbing(0.0, 1.0))), ValueError, "without the absorbing end"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_by_name(name, as_user):
    call, kind, text = BAD[name]
    with pytest.raises(kind, match=text):
        call()
