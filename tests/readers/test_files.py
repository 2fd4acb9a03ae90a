"""Files of arrays and tables come back to the bits, or to what their text kept."""

import sys

import numpy as np
import pytest
import torch

import sdegen as sg
from sdegen.readers import frames

F64 = torch.float64
TIMES = [0.25 * k for k in range(9)]


def walk(*shape, dtype=F64):
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=F64)
    return z.cumsum(0).to(dtype)


X, V = walk(9, 4, 2), walk(9, 4, 2) + 10


@pytest.fixture
def small_memory(monkeypatch):
    """As though all files were larger than what is read as a whole."""
    for module in ("frames", "hdf5", "zarr_store", "stored_states"):
        monkeypatch.setattr(f"sdegen.readers.{module}.IN_MEMORY", 16)


def check(stored, x=X, times=TIMES):
    assert stored.shape == tuple(x.shape)
    assert stored.dtype == x.dtype
    assert stored.times.tolist() == times
    assert torch.equal(stored.block(0, len(x)), x)
    assert torch.equal(stored.block(3, 5), x[3:5])
    assert torch.equal(stored.block(len(x) - 1, len(x)), x[-1:])


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_npy_is_mapped_and_keeps_its_bits(tmp_path, dtype):
    x = X.to(dtype)
    np.save(tmp_path / "x.npy", x.numpy())
    stored = sg.read_states(tmp_path / "x.npy", dt=0.25)
    check(stored, x)
    before = (tmp_path / "x.npy").read_bytes()
    stored.states.zero_()  # a page of our own
    assert (tmp_path / "x.npy").read_bytes() == before
    np.save(tmp_path / "y.npy", x.permute(1, 0, 2).numpy())
    check(sg.read_states(str(tmp_path / "y.npy"), dt=0.25, layout="batch, time, coordinate"), x)


def test_npy_of_a_large_file_takes_no_memory(tmp_path):
    array = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(2**20, 2**9, 1)
    )  # 2 GiB, of which one page is written
    array[2**19, 0] = 7.0
    del array
    stored = sg.read_states(tmp_path / "x.npy", dt=1.0)
    assert float(stored.block(2**19, 2**19 + 1)[0, 0, 0]) == 7.0


def test_npy_of_velocities_beside_positions(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    np.save(tmp_path / "v.npy", V.numpy())
    stored = sg.read_states(tmp_path / "x.npy", velocities=str(tmp_path / "v.npy"), dt=0.25)
    check(stored, torch.stack([X, V], 2))
    assert stored.phase_space


def test_npz_finds_its_times(tmp_path):
    np.savez(tmp_path / "x.npz", states=X.numpy(), time=TIMES)
    check(sg.read_states(tmp_path / "x.npz"))
    np.savez(tmp_path / "x.npz", x=X.numpy(), v=V.numpy(), when=TIMES)
    check(sg.read_states(tmp_path / "x.npz", key="x", times="when"))
    both = sg.read_states(tmp_path / "x.npz", key="x", velocities="v", times="when")
    check(both, torch.stack([X, V], 2))


def _h5(path, **arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            chunks = (2, *array.shape[1:]) if array.ndim > 1 else None
            file.create_dataset(name.replace("_", "/"), data=array, chunks=chunks)
    return path


@pytest.mark.parametrize("lazily", [False, True])
def test_hdf5_is_read_as_a_whole_or_in_blocks(tmp_path, lazily, request):
    if lazily:
        request.getfixturevalue("small_memory")
    path = _h5(tmp_path / "x.h5", a_x=X.numpy(), a_v=V.numpy(), a_time=np.array(TIMES))
    stored = sg.read_states(path, key="a/x")
    assert isinstance(stored.states, frames.Frames) == lazily
    check(stored)
    check(sg.read_states(path, key="a/x", velocities="a/v"), torch.stack([X, V], 2))
    scaled = sg.read_states(path, key="a/x", units={"length": 2.0, "time": 2.0})
    check(scaled, 2 * X, [2 * t for t in TIMES])
    path = _h5(tmp_path / "y.hdf5", x=X.permute(1, 2, 0).numpy().astype(">f4"))
    check(sg.read_states(path, layout="batch, coordinate, time", dt=0.25), X.float())


@pytest.mark.parametrize("lazily", [False, True])
def test_zarr_is_read_as_a_whole_or_in_blocks(tmp_path, lazily, request):
    zarr = pytest.importorskip("zarr")
    if lazily:
        request.getfixturevalue("small_memory")
    array = zarr.create_array(tmp_path / "x.zarr", shape=X.shape, chunks=(2, 4, 2), dtype="f8")
    array[:] = X.numpy()
    stored = sg.read_states(tmp_path / "x.zarr", dt=0.25)
    assert isinstance(stored.states, frames.Frames) == lazily
    check(stored)


def test_what_xarray_writes_says_its_axes(tmp_path):
    xarray = pytest.importorskip("xarray")
    data = xarray.Dataset(
        {"x": (("trajectory", "time", "coordinate"), X.permute(1, 0, 2).numpy())},
        coords={"time": TIMES},
    )
    data.to_zarr(tmp_path / "x.zarr", consolidated=False)
    check(sg.read_states(tmp_path / "x.zarr"))
    check(sg.read_states(xarray.open_zarr(tmp_path / "x.zarr", consolidated=False)["x"]))


def _run(path, sde=None, **options):
    start = torch.tensor([[0.0], [50.0], [0.1]], dtype=F64)
    sg.run_ensemble(
        sde or sg.ItoProcess(lambda x: x**3, 0.1), start, torch.linspace(0, 1, 101, dtype=F64),
        trajectories=3, observables=[sg.Moments()], rng=0, progress=False, store=path,
        on_nonfinite="freeze", **options,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("lazily", [False, True])
def test_the_store_of_a_run_leaves_out_what_was_lost(tmp_path, lazily, request):
    path = _run(tmp_path / "run.zarr")
    if lazily:
        request.getfixturevalue("small_memory")
    stored = sg.read_states(path)
    import xarray

    states = xarray.open_zarr(path, consolidated=False)["states"].values
    assert stored.lost == 1
    assert stored.times.tolist() == torch.linspace(0, 1, 101, dtype=F64).tolist()
    assert torch.equal(stored.block(0, 101), torch.from_numpy(states)[:, [0, 2]])
    assert torch.equal(stored.block(7, 9), torch.from_numpy(states)[7:9, [0, 2]])


def test_a_table_keeps_all_that_is_written(tmp_path):
    path = tmp_path / "x.csv"
    rows = [f"{t!r},{a!r},{b!r}" for t, (a, b) in zip(TIMES, X[:, 0].tolist(), strict=True)]
    path.write_text("\n".join(["time,x,y", *rows]))
    stored = sg.read_states(path, columns=["x", "y"])
    check(stored, X[:, :1])
    assert stored.columns == ("x", "y")
    assert (stored.rounding, stored.digits) == (0.0, None)
    check(sg.read_states(path, columns=["y"]), X[:, :1, 1:])
    phase = sg.read_states(path, columns=["x"], velocities=["y"])
    check(phase, X[:, :1, :].unsqueeze(-1))
    check(sg.read_states(path, layout="time, batch"), X[:, 0, :, None])


@pytest.mark.parametrize("separator", [" ", "\t", "; "])
def test_tables_of_numpy(tmp_path, separator):
    np.savetxt(
        tmp_path / "x.txt", np.c_[TIMES, X[:, 0]], delimiter=separator, header="t x y",
    )  # fmt: skip
    if separator.strip():
        text = (tmp_path / "x.txt").read_text().replace("t x y", f"t{separator}x{separator}y")
        (tmp_path / "x.txt").write_text(text)
    check(sg.read_states(tmp_path / "x.txt", columns=("x", "y")), X[:, :1])
    np.savetxt(tmp_path / "y.dat", X[:, :, 0])
    stored = sg.read_states(tmp_path / "y.dat", layout="time, batch", dt=0.25)
    check(stored, X[..., :1])


def test_a_table_of_several_trajectories(tmp_path):
    rows = [
        f"{k},{t!r},{X[i, k, 0].item()!r},{X[i, k, 1].item()!r}"
        for i, t in enumerate(TIMES)
        for k in (2, 0, 3, 1)  # in any order of trajectories
    ]
    (tmp_path / "x.csv").write_text("\n".join(["trajectory,time,x,y", *rows]))
    check(sg.read_states(tmp_path / "x.csv"), X[:, [2, 0, 3, 1]])


@pytest.mark.parametrize(
    ("form", "rounding", "digits"),
    [
        ("{:.4f}", 5e-5, None),
        ("{:.0f}", 0.5, None),
        ("{:.6g}", 0.0, 6),
        ("{:.6e}", 0.0, 7),
        ("{:.3E}", 0.0, 4),
        ("{!r}", 0.0, None),
        ("{:.18e}", 0.0, None),
    ],
)
def test_what_a_text_kept_is_seen_in_it(tmp_path, form, rounding, digits):
    x = 30 * walk(500, 1, 2)
    path = tmp_path / "x.csv"
    path.write_text("\n".join(",".join(form.format(n) for n in row) for row in x[:, 0].tolist()))
    stored = sg.read_states(path, layout="time, coordinate", dt=0.25)
    assert (stored.rounding, stored.digits) == (rounding, digits)
    kept = stored.block(0, 500)
    half, error = stored.rounding_at(kept), (kept - x).abs()
    assert bool((error <= half * (1 + 1e-9)).all())
    if rounding or digits:  # uniform within its width: 1/2 ± 0.01, 5 standard errors are 0.05
        assert float((error / half)[x.abs() > 1].mean()) == pytest.approx(0.5, abs=0.05)
    scaled = sg.read_states(path, layout="time, coordinate", dt=0.25, units={"length": 0.3})
    again = scaled.block(0, 500)
    assert torch.allclose(scaled.rounding_at(again), 0.3 * half, rtol=1e-9, atol=1e-13)


def test_rounded_values_that_python_writes(tmp_path):
    x = (walk(500, 1, 1) * 1000).round() / 1000
    path = tmp_path / "x.csv"
    path.write_text("\n".join(repr(n) for n in x.flatten().tolist()) + "\n0.30000000000000004\n")
    assert sg.read_states(path, dt=0.25).rounding == 5e-4


def test_columns_that_are_cut_at_several_decimals(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("\n".join(f"{a:.2f},{b:.4f}" for a, b in X[:, 0].tolist()))
    stored = sg.read_states(path, layout="time, coordinate", dt=0.25)
    assert stored.rounding.tolist() == [5e-3, 5e-5]


def test_times_of_a_text_are_those_before_they_were_rounded(tmp_path):
    times = torch.arange(60, dtype=F64) / 3
    rows = [f"{t:.3f},{x!r}" for t, x in zip(times.tolist(), walk(60).tolist(), strict=True)]
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["t,x", *rows]))
    assert sg.read_states(path).dt == pytest.approx(1 / 3, rel=1e-4)  # 2 × 5e-4/20
    assert torch.equal(sg.read_states(path, dt=1 / 3).times, torch.arange(60, dtype=F64) * (1 / 3))
    with pytest.raises(ValueError, match=r"dt = 0.3 contradicts the times of .* from 0 to 1"):
        sg.read_states(path, dt=0.3)


def test_times_that_are_whole_are_not_taken_for_rounded(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("t,x\n0,0.25\n1,0.5\n2,0.75\n4,1.25\n")
    stored = sg.read_states(path)
    assert stored.times.tolist() == [0, 1, 2, 4]
    with pytest.raises(ValueError, match=r"times\[3\] − times\[2\] = 2"):
        _ = stored.dt


def test_files_of_one_trajectory_each_are_put_beside_each_other(tmp_path):
    names = [tmp_path / f"{k}.npy" for k in range(4)]
    for k, name in enumerate(names):
        np.save(name, X[:, k].numpy())
    stored = sg.read_states(names, layout="time, coordinate", dt=0.25)
    check(stored)
    assert stored.source.startswith("4 sources, the first")
    arrays = [X[:, k : k + 1].numpy() for k in range(4)]
    check(sg.read_states(arrays, dt=0.25))
    check(sg.read_states([sg.read_states(a, dt=0.25) for a in arrays]))


def test_the_coarsest_rounding_of_several_is_that_of_all(tmp_path):
    for name, form in (("a", "{:.3f}"), ("b", "{:.5f}")):
        (tmp_path / f"{name}.csv").write_text("\n".join(map(form.format, X[:, 0, 0].tolist())))
    names = [tmp_path / "b.csv", tmp_path / "a.csv"]
    assert sg.read_states(names, dt=0.25).rounding == 5e-4


def test_large_files_are_put_beside_each_other_when_they_are_read(tmp_path, small_memory):
    names = [tmp_path / f"{k}.npy" for k in range(4)]
    for k, name in enumerate(names):
        np.save(name, X[:, k].numpy())
    stored = sg.read_states(names, layout="time, coordinate", dt=0.25)
    assert isinstance(stored.states, frames.CombinedFrames)
    check(stored)


def test_a_nan_of_a_large_file_is_named_when_it_is_read(tmp_path, small_memory):
    x = X.clone()
    x[7, 2, 1] = torch.nan
    np.save(tmp_path / "x.npy", x.numpy())
    stored = sg.read_states(tmp_path / "x.npy", dt=0.25)
    assert torch.equal(stored.block(0, 7), X[:7])
    with pytest.raises(ValueError, match="nan in frame 7, trajectory 2, coordinate 1"):
        stored.block(6, 9)


def test_half_precision_in_a_file(tmp_path):
    np.save(tmp_path / "x.npy", X.half().numpy())
    stored = sg.read_states(tmp_path / "x.npy", dt=0.25)
    assert stored.precision == torch.float16
    check(stored, X.half().float())


def test_tables_and_arrays_need_no_extra(tmp_path, monkeypatch):
    for name in ("ase", "h5py", "zarr", "xarray", "pandas"):
        for loaded in [m for m in sys.modules if m.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)  # which no import gets past
    (tmp_path / "x.csv").write_text("0.5\n1.5\n2.5\n")
    assert sg.read_states(tmp_path / "x.csv", dt=1.0).shape == (3, 1, 1)
    check(sg.read_states(X.numpy(), dt=0.25))


def _text(path, text):
    path.write_text(text)
    return path


BAD = {
    "a file that is not there": (
        lambda d: sg.read_states(d / "no.npy", dt=1.0), FileNotFoundError, "pass its whole path"),
    "an unknown suffix": (
        lambda d: sg.read_states(_text(d / "x.dcd", "a"), dt=1.0), ValueError,
        r"\.npy, \.npz, \.csv, .*say what it is"),
    "an unknown format": (
        lambda d: sg.read_states(_text(d / "x.dcd", "a"), format="dcd", dt=1.0), ValueError,
        "'lammps'"),
    "an empty file": (
        lambda d: sg.read_states(_text(d / "x.csv", ""), dt=1.0), ValueError, "x.csv is empty"),
    "a folder": (
        lambda d: sg.read_states(d, format="npy", dt=1.0), ValueError, "a list of files"),
    "no npy": (
        lambda d: sg.read_states(_text(d / "x.npy", "text"), dt=1.0), ValueError, "damaged"),
    "objects in npy": (
        lambda d: (np.save(d / "x.npy", np.array([{}, 1])), sg.read_states(d / "x.npy", dt=1.0)),
        ValueError, "never unpickled"),
    "npy that is cut off": (
        lambda d: (np.save(d / "y.npy", X.numpy()),
                   (d / "x.npy").write_bytes((d / "y.npy").read_bytes()[:300]),
                   sg.read_states(d / "x.npy", dt=1.0)), ValueError, "cut off"),
    "npz that is cut off": (
        lambda d: (np.savez(d / "y.npz", X.numpy()),
                   (d / "x.npz").write_bytes((d / "y.npz").read_bytes()[:300]),
                   sg.read_states(d / "x.npz", dt=1.0)), ValueError, "cut off"),
    "integers in npy": (
        lambda d: (np.save(d / "x.npy", np.arange(4)), sg.read_states(d / "x.npy", dt=1.0)),
        TypeError, "int64"),
    "an array beside npy": (
        lambda d: (np.save(d / "x.npy", X.numpy()),
                   sg.read_states(d / "x.npy", velocities=V, dt=1.0)), TypeError, "an .npy file"),
    "no npz": (
        lambda d: sg.read_states(_text(d / "x.npz", "text"), dt=1.0), ValueError, "damaged"),
    "several arrays without a key": (
        lambda d: (np.savez(d / "x.npz", a=X, b=V), sg.read_states(d / "x.npz", dt=1.0)),
        ValueError, r"'a' of shape \(9, 4, 2\), 'b' of shape .*key="),
    "a key that is not there": (
        lambda d: (np.savez(d / "x.npz", a=X), sg.read_states(d / "x.npz", key="b", dt=1.0)),
        ValueError, "holds no 'b', but 'a'"),
    "a key that is no text": (
        lambda d: (np.savez(d / "x.npz", a=X), sg.read_states(d / "x.npz", key=1, dt=1.0)),
        TypeError, "key must be the name"),
    "velocities of npz that are an array": (
        lambda d: (np.savez(d / "x.npz", a=X), sg.read_states(d / "x.npz", velocities=V, dt=1.0)),
        TypeError, "the name of an array"),
    "objects in npz": (
        lambda d: (np.savez(d / "x.npz", a=np.array([{}])), sg.read_states(d / "x.npz", dt=1.0)),
        TypeError, "'a' holds objects"),
    "no hdf5": (
        lambda d: sg.read_states(_text(d / "x.h5", "text"), dt=1.0), ValueError, "no HDF5 file"),
    "no zarr": (
        lambda d: ((d / "x.zarr").mkdir(), sg.read_states(d / "x.zarr", dt=1.0)), ValueError,
        "no Zarr folder"),
    "text in a cell": (
        lambda d: sg.read_states(_text(d / "x.csv", "x,y\n1.5,2.5\n1.5,no\n"), dt=1.0,
                                 columns=["x", "y"]), ValueError,
        "line 3 of .* has 'no' in column 'y'"),
    "a short row": (
        lambda d: sg.read_states(_text(d / "x.csv", "1.5,2.5\n1.5\n"), dt=1.0), ValueError,
        "line 2 of .* has 1 cells, but line 1 has 2"),
    "names alone": (
        lambda d: sg.read_states(_text(d / "x.csv", "x,y\n"), dt=1.0), ValueError, "no rows"),
    "bytes": (
        lambda d: ((d / "x.csv").write_bytes(b"\xff\xfe\0"), sg.read_states(d / "x.csv", dt=1.0)),
        ValueError, "is no text"),
    "columns that could be trajectories": (
        lambda d: sg.read_states(_text(d / "x.csv", "a,b\n1.5,2.5\n1.5,3.5\n"), dt=1.0),
        ValueError, "either 2 trajectories"),
    "a column that is not there": (
        lambda d: sg.read_states(_text(d / "x.csv", "a,b\n1.5,2.5\n1.5,3.5\n"), columns=["c"],
                                 dt=1.0), ValueError, "has no column 'c', but 'a', 'b'"),
    "columns by number": (
        lambda d: sg.read_states(_text(d / "x.csv", "a,b\n1.5,2.5\n1.5,3.5\n"), columns=[0],
                                 dt=1.0), TypeError, "names of columns"),
    "times alone": (
        lambda d: sg.read_states(_text(d / "x.csv", "t\n1.5\n2.5\n")), ValueError, "of states"),
    "columns of an array": (
        lambda d: sg.read_states(X, columns=["x"], dt=1.0), ValueError, "columns= is of files"),
    "columns of npy": (
        lambda d: (np.save(d / "x.npy", X), sg.read_states(d / "x.npy", columns=["x"], dt=1.0)),
        ValueError, "columns=.* says nothing of a file of format 'npy'"),
    "a name of times in npy": (
        lambda d: (np.save(d / "x.npy", X), sg.read_states(d / "x.npy", times="t")), ValueError,
        "times='t' says nothing"),
    "trajectories of other lengths": (
        lambda d: sg.read_states(_text(d / "x.csv", "batch,t,x\n0,0,1.5\n0,1,1.5\n1,0,2.5\n")),
        ValueError, "rows, and others"),
    "trajectories of other times": (
        lambda d: sg.read_states(
            _text(d / "x.csv", "batch,t,x\n0,0,1.5\n0,1,1.5\n1,0,2.5\n1,2,3.5\n")), ValueError,
        "time 1 of the first is 1, and of trajectory 1 2"),
    "trajectories with a layout": (
        lambda d: sg.read_states(
            _text(d / "x.csv", "batch,t,x\n0,0,1.5\n0,1,1.5\n1,0,2.5\n1,1,3.5\n"),
            layout="time, batch"), ValueError, "leave layout= out"),
    "an empty list": (lambda d: sg.read_states([], dt=1.0), ValueError, "an empty list"),
    "other shapes in a list": (
        lambda d: sg.read_states([X, X[..., :1]], dt=1.0), ValueError, "has states of shape"),
    "other lengths in a list": (
        lambda d: sg.read_states([X, X[:5]], dt=1.0), ValueError, "has 5 frames"),
    "other dtypes in a list": (
        lambda d: sg.read_states([X, X.float()], dt=1.0), TypeError, "pass all in one dtype"),
    "other times in a list": (
        lambda d: sg.read_states([sg.read_states(X, dt=1.0), sg.read_states(X, dt=2.0)]),
        ValueError, "has time 16 in frame 8, but the first 8"),
    "other periods in a list": (
        lambda d: sg.read_states([sg.read_states(X, dt=1.0, periods=p) for p in (1.0, 2.0)]),
        ValueError, "other periods"),
    "times by a name that an array has not": (
        lambda d: sg.read_states(X, times="t"), TypeError, "pass the times"),
    "a run in a ring": (
        lambda d: sg.read_states(_run(d / "r.zarr", sg.BrownianMotion(),
                                      boundary=sg.Periodic(-60.0, 60.0))), ValueError,
        "from -60 to 60; pass periods="),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name(name, tmp_path, as_user):
    call, kind, text = BAD[name]
    with pytest.raises(kind, match=text):
        call(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "library", "extra"),
    [("h5", "h5py", "trajectories"), ("xyz", "ase", "trajectories"), ("zarr", "zarr", "io")],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, suffix, library, extra):
    for name in [m for m in sys.modules if m.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"pip install 'sdegen\[{extra}\]'"):
        sg.read_states(_text(tmp_path / f"x.{suffix}", "a"), dt=1.0)
