"""Advice on stored states of any program, followed."""

from pathlib import Path

import numpy as np
import pytest
import torch

import sdegen as sg
from tests.cures.common import BM, F64, column, simulate
from tests.cures.places import inside, ours

X = torch.randn(6, 2, 1, generator=torch.Generator().manual_seed(0), dtype=F64).cumsum(0)
BOX = [[4.0, 5.0, 6.0]]
_read = sg.read_states


def same(stored, x=X):
    """States that came over to the bits."""
    assert torch.equal(stored.block(0, len(x)), x), stored.source


def read(source=X, **options):
    return _read(source, **({"dt": 1.0} | options))


def kept(source, x=X, **options):
    same(read(source, **options), x)


def file(name, make, *, x=None, then=None, **options):
    """A program that writes a file and reads it, or what follows; what is read is x."""

    def runs():
        make(name)
        if then is not None:
            then()
        elif x is None:
            read(name, **options)
        else:
            kept(name, x, **options)

    return inside(ours(runs, OSError))


def text(*lines):
    return lambda name: Path(name).write_text("\n".join(lines) + "\n")


def npy(x=X):
    return lambda name: np.save(name, np.asarray(x))


def npz(**arrays):
    return lambda name: np.savez(name, **{k: np.asarray(v) for k, v in arrays.items()})


def hdf5(x=X):
    def make(name):
        h5py = pytest.importorskip("h5py")
        with h5py.File(name, "w") as held:
            held["x"] = np.asarray(x)

    return make


PLACES = 0.1 * torch.randn(6, 3, 3, generator=torch.Generator().manual_seed(1), dtype=F64)


def dump(*, columns="id xu yu zu", ends="pp pp pp", skip=0, high=None, tilt="", cut=0, steps=None):
    """A dump of three atoms, or one that something is wrong with."""

    def make(name):
        lines = []
        for k, frame in enumerate(PLACES.tolist()):
            n = 3 - (skip if k == 2 else 0)
            step = 10 * k if steps is None else steps[k]
            lines += ["ITEM: TIMESTEP", str(step), "ITEM: NUMBER OF ATOMS", str(n)]
            lines += [f"ITEM: BOX BOUNDS {ends}"]
            lines += [f"0 {high if high and k == 2 else side}{tilt}" for side in BOX[0]]
            lines += [f"ITEM: ATOMS {columns}"]
            for i, place in enumerate(frame[:n]):
                cells = [str(i + 1)] * ("id" in columns.split()) + list(map(repr, place))
                lines += [" ".join(cells[: len(columns.split())])]
        Path(name).write_text("\n".join(lines[: len(lines) - cut]) + "\n")

    return make


def xyz(symbols=lambda k: "Ar He Ne", *, lattice="4 0 0 0 5 0 0 0 6", atoms=3, pbc="T T T",
        ids=False):  # fmt: skip
    """The same as extended XYZ."""

    def make(name):
        pytest.importorskip("ase")
        lines = []
        for k, frame in enumerate(PLACES.tolist()):
            box = lattice(k) if callable(lattice) else lattice
            lines += [str(atoms if k == 2 else 3)]
            said = f'Lattice="{box}" pbc="{pbc}" Properties=species:S:1:pos:R:3'
            lines += [said + (":id:I:1" if ids else "")]
            for word in symbols(k).split()[: atoms if k == 2 else 3]:
                i = _ELEMENTS.get(word, 0)
                lines += [f"{word} {' '.join(map(repr, frame[i]))}{f' {i}' if ids else ''}"]
        Path(name).write_text("\n".join(lines) + "\n")

    return make


_ELEMENTS = {"Ar": 0, "He": 1, "Ne": 2}
ATOMS = PLACES[:, None]
READ = {"x": ATOMS}


def store(*, boundary=None, blocks=None, sde=BM, start=0.5, **options):
    """The store of a run."""

    def make(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sdegen.engine.blocks._NUMBERS", {"cpu": 4})
            sg.run_ensemble(
                sde, column(start, 1), torch.linspace(0, 1, 11, dtype=F64), trajectories=600,
                observables=[sg.Moments()], rng=0, progress=False, store=name, threads=1,
                boundary=boundary, **options,
            )  # fmt: skip
        if blocks is not None:
            for record in list(Path(name, "progress/records/c").glob("*/0"))[blocks:]:
                record.unlink()

    return make


def stored(name="r.zarr"):
    assert _read(name).shape == (11, 600, 1)


def _resumed():
    store(blocks=1)("r.zarr")
    store(resume=True)("r.zarr")
    stored()


def _ring():
    store(boundary=sg.Periodic(0.0, 1.0))("r.zarr")
    assert _read("r.zarr", periods=1.0).wrapped


def exploding(x0):
    cubic = sg.ItoProcess(lambda x: x**3, 0.1)
    return sg.simulate(cubic, column(x0), torch.linspace(0, 1, 101), rng=0, on_nonfinite="freeze")


def labelled(dims=("time", "batch", "x"), **coords):
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(X.numpy(), dims=dims, coords=coords)


DATES = np.arange(6).astype("M8[s]")
TABLE = ("t,x,y", *(f"{k},{0.5 * k},{0.25 * k}" for k in range(6)))
XY = torch.stack([0.5 * torch.arange(6), 0.25 * torch.arange(6)], 1).double()[:, None]
LONG = ("batch,t,x", *(f"{i},{k},{X[k, i, 0].item()!r}" for i in range(2) for k in range(6)))
UNEVEN = [0, 1, 2, 3, 5, 6]

FOLLOWED = {
    "states that are rows of several lengths": (
        "of which NumPy makes none; pass rows of one length",
        lambda: read(_Ragged()),
        lambda: kept(X.numpy()),
    ),
    "masked states": (
        "masked numbers, which are not known; leave out the trajectories that they are of",
        lambda: read(np.ma.masked_array(X.numpy(), np.arange(12).reshape(6, 2, 1) == 3)),
        lambda: kept(X[:, :1].numpy(), X[:, :1]),
    ),
    "states of dates": (
        r"pass an array of float64, np.array\(…, dtype=float\)\.$",
        lambda: read(X.numpy().astype(str)),
        lambda: kept(np.array(X.numpy().astype(str), dtype=float)),
    ),
    "states in long double": (
        "which torch does not know; pass .astype",
        lambda: read(X.numpy().astype(np.longdouble)),
        lambda: kept(X.numpy().astype(np.longdouble).astype("float64")),
    ),
    "complex states": (
        "pass real and imaginary parts as two coordinates, torch.view_as_real",
        lambda: read(torch.complex(X, X)),
        lambda: kept(
            torch.view_as_real(torch.complex(X, X)), torch.stack([X, X], -1)
        ),
    ),
    "stored integers": (
        r"pass the floats that they were rounded from, or .astype\('float64'\) with rounding=0.5",
        lambda: read(X.numpy().round().astype(int)),
        lambda: [
            kept(X),
            kept(X.numpy().round().astype(int).astype("float64"), X.round(), rounding=0.5),
        ],
    ),
    "states of eight bits": (
        "which holds no state; pass float32",
        lambda: read(X.to(torch.float8_e5m2)),
        lambda: kept(X.float(), X.float()),
    ),
    "velocities of a dump, said": (
        "leave velocities= out, or pass False for positions alone",
        file("x.dump", dump(), velocities=X),
        lambda: [file("x.dump", dump(), **READ, **o)() for o in ({}, {"velocities": False})],
    ),
    "states in a file that is elsewhere": (
        r"\(looked for in \{\}\); pass its whole path",
        file("x.npy", npy(), then=lambda: read("no/x.npy")),
        file("x.npy", npy(), then=lambda: kept(Path("x.npy").resolve())),
    ),
    "velocities in a file that is elsewhere": (
        "there is no file {}; pass its whole path",
        file("x.npy", npy(), velocities="no/v.npy"),
        file(
            "x.npy", npy(),
            then=lambda: kept("x.npy", torch.stack([X, X], 2), velocities=Path("x.npy").resolve()),
        ),
    ),
    "states in a folder": (
        "is a folder; pass a file, or a list of files",
        file("d", lambda name: Path(name).mkdir(), format="npy"),
        file("x.npy", npy(), then=lambda: [kept("x.npy"), kept(["x.npy"])]),
    ),
    "states in an empty file": (
        r"was the run that writes it killed\? Write it again",
        file("x.csv", lambda name: Path(name).touch()),
        file("x.csv", text("0.5", "1.5"), x=torch.tensor([[[0.5]], [[1.5]]], dtype=F64)),
    ),
    "states of an unknown suffix": (
        "say what it is, format='lammps' for example, or convert it",
        file("x.out", dump()),
        file("x.out", dump(), format="lammps", **READ),
    ),
    "objects beside other arrays": (
        "holds objects; save an array of float64 in its place",
        file("x.npz", npz(a=np.array([{}, 1]))),
        file("x.npz", npz(a=X), x=X),
    ),
    "objects in a file of one array": (
        r"never unpickled; save an array of float64, np.save\(name",
        file("x.npy", npy(np.array([{}, 1]))),
        file("x.npy", npy(np.array(X.tolist(), dtype=float)), x=X),
    ),
    "a damaged file of NumPy's": (
        r"or no file of NumPy's \({}\); write it again",
        file("x.npy", text("x")),
        file("x.npy", npy(), x=X),
    ),
    "a damaged HDF5 file": (
        r"or no HDF5 file \({}\); write it again, or wait until it is closed",
        file("x.h5", text("x")),
        file("x.h5", hdf5(), x=X),
    ),
    "sources of other shapes": (
        "has states of shape {}, but the first {}; pass those of one system",
        lambda: read([X, torch.cat([X, X], 2)]),
        lambda: kept([X, X], torch.cat([X, X], 1)),
    ),
    "sources of other dtypes": (
        "has dtype {}, but the first {}; pass all in one dtype",
        lambda: read([X, X.float()]),
        lambda: kept([X.float(), X.float()], torch.cat([X, X], 1).float()),
    ),
    "sources of other lengths": (
        "has {} frames, but the first {}; cut all to the same times",
        lambda: read([X, X[:4]]),
        lambda: kept([X[:4], X[:4]], torch.cat([X, X], 1)[:4]),
    ),
    "sources of other times": (
        "has time {} in frame {}, but the first {}; cut all to the same times",
        lambda: _read([_read(X, dt=1.0), _read(X, dt=0.5)]),
        lambda: same(_read([_read(X[:3], dt=1.0), _read(X[:5:2], dt=1.0)]),
                     torch.cat([X[:3], X[:5:2]], 1)),
    ),
    "sources of other periods": (
        "has other {} than the first; pass those of one system",
        lambda: _read([read(periods=p) for p in (9.0, 8.0)]),
        lambda: same(_read([read(periods=9.0)] * 2), torch.cat([X, X], 1)),
    ),
    "a Dataset": (
        r"pass one of its arrays, dataset\['states'\]",
        lambda: read(labelled().to_dataset(name="states")),
        lambda: kept(labelled().to_dataset(name="states")["states"]),
    ),
    "dimensions without time": (
        "name them by layout=, such as 'time, batch, coordinate', or by array.rename",
        lambda: read(labelled(("t", "batch", "x"))),
        lambda: [
            kept(labelled(("t", "batch", "x")), layout="time, batch, coordinate"),
            kept(labelled(("t", "batch", "x")).rename(t="time")),
        ],
    ),
    "dates of xarray": (
        r"replace them, array.assign_coords\(time=…\), by numbers in its unit of time",
        lambda: read(labelled(time=DATES)),
        lambda: kept(labelled(time=DATES).assign_coords(time=range(6))),
    ),
    "a dump without positions": (
        "and none of positions; write xu yu zu, or x y z ix iy iz, into the dump",
        file("x.dump", dump(columns="id fx fy fz")),
        file("x.dump", dump(), **READ),
    ),
    "a dump of other atoms": (
        r"has {} atoms, but frame 0 has {}; write a group whose atoms stay, dump … group",
        file("x.dump", dump(skip=1)),
        file("x.dump", dump(), **READ),
    ),
    "a dump without ids": (
        "nobody knows which is which; write id into the dump",
        file("x.dump", dump(columns="xu yu zu")),
        file("x.dump", dump(), **READ),
    ),
    "a dump of a box that changes": (
        r"the box of {} changes along {}.* run it at constant volume",
        file("x.dump", dump(high=7.0)),
        file("x.dump", dump(), **READ),
    ),
    "a dump that is cut off": (
        "as in a run that was killed; remove that frame",
        file("x.dump", dump(cut=2)),
        file("x.dump", dump(cut=12), x=ATOMS[:5]),
    ),
    "a dump of a tilted box": (
        "of a box with right angles; run it in one",
        file("x.dump", dump(ends="xy xz yz pp pp pp", tilt=" 0.5")),
        file("x.dump", dump(ends="xy xz yz pp pp pp", tilt=" 0.0"), **READ),
    ),
    "no dump": (
        "say what the file is, format=…, or write dump atom or dump custom",
        file("x.dump", text("1.5", "2.5")),
        lambda: [
            file("x.dump", dump(), **READ)(),
            file("x.dump", text("1.5", "2.5"), format="csv",
                 x=torch.tensor([[[1.5]], [[2.5]]], dtype=F64))(),
        ],
    ),
    "a dump of uneven steps": (
        "remove frames that were written twice, or pass times=, that of each",
        file("x.dump", dump(steps=[0, 10, 20, 20, 30, 40])),
        lambda: [
            file("x.dump", dump(), **READ)(),
            file("x.dump", dump(steps=[10 * t for t in UNEVEN]), times=UNEVEN, dt=None, **READ)(),
        ],
    ),
    "two axes": (
        "pass layout='time, batch' or layout='time, coordinate'",
        lambda: read(X[..., 0]),
        lambda: [
            kept(X[..., 0], layout="time, batch"),
            kept(X[..., 0], X[..., 0][:, None], layout="time, coordinate"),
        ],
    ),
    "states of one number": (
        "are one number; pass those of all times",
        lambda: read(X[0, 0, 0]),
        lambda: kept(X[:, 0, 0], X[:, :1]),
    ),
    "a layout of fewer axes": (
        "axes, but {} have shape {}; name each of them, such as",
        lambda: read(layout="time, batch"),
        lambda: kept(X, layout="time, batch, coordinate"),
    ),
    "a layout without time": (
        "and no axis twice; write it like",
        lambda: read(layout="a, batch, b"),
        lambda: kept(X, layout="time, batch, coordinate"),
    ),
    "several arrays": (
        "say which of them are the states, key=",
        file("x.npz", npz(a=X, b=X)),
        file("x.npz", npz(a=X, b=X), x=X, key="a"),
    ),
    "an array by another name": (
        "holds no {}, but {}; pass one of these",
        file("x.npz", npz(a=X), key="b"),
        file("x.npz", npz(a=X), x=X, key="a"),
    ),
    "no sources": (
        "source is an empty list; pass {}",
        lambda: read([]),
        lambda: kept([X]),
    ),
    "what a format does not have": (
        "says nothing of a file of format {}; leave it out",
        file("x.npy", npy(), key="x"),
        file("x.npy", npy(), x=X),
    ),
    "what files alone have": (
        "is of files, and source is none; leave it out",
        lambda: read(key="x"),
        lambda: kept(X),
    ),
    "times of an array by name": (
        "has no other beside it; pass the times",
        lambda: _read(X, times="t"),
        lambda: same(_read(X, times=UNEVEN)),
    ),
    "a Trajectory that is lost": (
        "trajectories of the Trajectory were lost, and no state is left to judge; lower dt, or "
        "start elsewhere",
        lambda: _read(exploding(50.0)),
        lambda: same(_read(exploding(0.1)), exploding(0.1).states),
    ),
    "a Trajectory that is absorbed": (
        "no longer follow the SDE; simulate them without the absorbing end",
        lambda: _read(simulate(BM, boundary=sg.Absorbing(0.4, 0.6))),
        lambda: same(_read(simulate(BM)), simulate(BM).states),
    ),
    "what a Trajectory says itself": (
        "is that of the {} itself; leave {}= out",
        lambda: read(simulate(BM)),
        lambda: same(_read(simulate(BM)), simulate(BM).states),
    ),
    "velocities of other shapes": (
        "velocities have shape {}, but positions {}; pass one for each of them",
        lambda: read(velocities=X[1:]),
        lambda: kept(X, torch.stack([X, X], 2), velocities=X),
    ),
    "velocities of other dtypes": (
        "velocities have dtype {}, but positions {}; pass both in one",
        lambda: read(velocities=X.float()),
        lambda: kept(X, torch.stack([X, X], 2), velocities=X.float().double().mul(0).add(X)),
    ),
    "periods of fewer axes": (
        "pass one number, or one for each coordinate, with as many axes",
        file("x.dump", dump(), periods=BOX[0]),
        lambda: [file("x.dump", dump(), periods=p, **READ)() for p in (9.0, BOX)],
    ),
    "times of fewer frames": (
        "entries, but there are {} frames; pass one for each frame.$",
        lambda: sg.StoredStates(torch.arange(5), X),
        lambda: same(sg.StoredStates(torch.arange(6), X)),
    ),
    "folded into nothing": (
        "and none has one; pass periods=, the length of each",
        lambda: read(wrapped=True),
        lambda: kept(X, wrapped=True, periods=9.0),
    ),
    "frames that are not there": (
        "are not there: ask for 0 ≤ first < last ≤",
        lambda: read().block(3, 7),
        lambda: kept(X),
    ),
    "a phase space of one half": (
        "pass positions alone, with velocities= beside them",
        lambda: read(X[:, :, None], phase_space=True),
        lambda: kept(X, torch.stack([X, X], 2), velocities=X),
    ),
    "states that are not finite": (
        "coordinate {}; leave these trajectories out, or end the frames before",
        lambda: read(_holed()),
        lambda: [kept(_holed()[:, :1], X[:, :1]), kept(_holed()[:4], X[:4])],
    ),
    "a table of times alone": (
        "has no column of states; pass columns=, the names of theirs",
        file("x.csv", text("t", "1", "2"), dt=None),
        file("x.csv", text(*TABLE), x=XY, columns=["x", "y"]),
    ),
    "a table that is no text": (
        r"is no text \({}\); say what it is, format=",
        file("x.dat", npy(), then=lambda: (Path("x.dat.npy").rename("x.dat"), read("x.dat"))),
        file(
            "x.dat", npy(),
            then=lambda: (Path("x.dat.npy").rename("x.dat"), kept("x.dat", format="npy")),
        ),
    ),
    "a table of uneven rows": (
        "cells, but line {} has {}; give each row one for each column",
        file("x.csv", text(*TABLE, "6,1.5"), columns=["x", "y"]),
        file("x.csv", text(*TABLE), x=XY, columns=["x", "y"]),
    ),
    "a table with text": (
        "which is no number; write a number there, or leave the column out by columns=",
        file("x.csv", text(*TABLE[:-1], "5,no,1.25"), columns=["x", "y"]),
        lambda: [
            file("x.csv", text(*TABLE), x=XY, columns=["x", "y"])(),
            file("x.csv", text(*TABLE[:-1], "5,no,1.25"), x=XY[..., 1:], columns=["y"])(),
        ],
    ),
    "a table without a column": (
        "has no column {}, but {}; pass one of these",
        file("x.csv", text(*TABLE), columns=["z"]),
        file("x.csv", text(*TABLE), x=XY[..., 1:], columns=["y"]),
    ),
    "a table of other lengths": (
        "rows, and others {}; give each all times, or leave it out",
        file("x.csv", text(*LONG[:-1])),
        lambda: [
            file("x.csv", text(*LONG), x=X)(),
            file("x.csv", text(*LONG[:7]), x=X[:, :1])(),
        ],
    ),
    "a table of other times": (
        "and of trajectory {} {}; give each the same times, sorted",
        file("x.csv", text(*LONG[:-1], "1,7,0.5"), dt=None),
        file("x.csv", text(*LONG), x=X),
    ),
    "a table of trajectories with a layout": (
        "and its other columns are coordinates; leave layout= out",
        file("x.csv", text(*LONG), layout="time, batch"),
        file("x.csv", text(*LONG), x=X),
    ),
    "times that are uneven": (
        "take the part of the states that is, or read each interval of times itself",
        lambda: _read(X, times=UNEVEN).dt,
        lambda: [
            _equal(_read(X[:4], times=UNEVEN[:4]).dt, 1.0),
            _equal(_read(X, times=UNEVEN).times.diff().tolist(), [1, 1, 1, 2, 1]),
        ],
    ),
    "dt beside other times": (
        "leave one of them out",
        lambda: _read(X, dt=0.5, times=range(6)),
        lambda: [_equal(_read(X, **o).dt, o.get("dt", 1.0)) for o in _EITHER],
    ),
    "dt beside times in another unit": (
        "leave dt out, or say the unit of these times, units={'time': …}",
        file("x.npz", npz(x=X, t=np.arange(6.0)), dt=0.5),
        lambda: [
            file("x.npz", npz(x=X, t=np.arange(6.0)), x=X, dt=None)(),
            file("x.npz", npz(x=X, t=np.arange(6.0)), x=X, dt=0.5, units={"time": 0.5})(),
        ],
    ),
    "stored states without times": (
        "does not say when its states were stored; pass dt=, the time from one frame",
        lambda: _read(X),
        lambda: [same(_read(X, **o)) for o in _EITHER],
    ),
    "times of another axis": (
        "pass one for each frame, and layout= if time is not the first axis",
        lambda: _read(X.transpose(0, 1), times=range(6)),
        lambda: same(_read(X.transpose(0, 1), times=range(6), layout="batch, time, coordinate")),
    ),
    "dt that is negative": (
        "pass times= where time runs backwards",
        lambda: read(dt=-1.0),
        lambda: _equal(_read(X, times=range(0, -6, -1)).dt, -1.0),
    ),
    "species of no element": (
        "write it again, species as chemical symbols",
        file("x.xyz", xyz(lambda k: "A B C")),
        file("x.xyz", xyz(), **READ),
    ),
    "other atoms in xyz": (
        "atoms, but frame 0 has {}; write atoms that stay",
        file("x.xyz", xyz(atoms=2)),
        file("x.xyz", xyz(), **READ),
    ),
    "atoms in another order": (
        "atoms were reordered; write them in one order, or a column id:I:1",
        file("x.xyz", xyz(lambda k: "He Ar Ne" if k == 3 else "Ar He Ne")),
        lambda: [
            file("x.xyz", xyz(), **READ)(),
            file("x.xyz", xyz(lambda k: "He Ar Ne" if k == 3 else "Ar He Ne", ids=True), **READ)(),
        ],
    ),
    "a box of xyz without lengths": (
        "in a box without lengths; write Lattice= into its comments",
        file("x.xyz", xyz(lattice="0 0 0 0 5 0 0 0 6")),
        file("x.xyz", xyz(), **READ),
    ),
    "a tilted box in xyz": (
        "unwrap positions, and write them with pbc=",
        file("x.xyz", xyz(lattice="4 0 0 1 5 0 0 0 6")),
        file("x.xyz", xyz(lattice="4 0 0 1 5 0 0 0 6", pbc="F F F"), **READ),
    ),
    "a box of xyz that changes": (
        "changes in frame {}, and an SDE has fixed periods; run it at constant volume",
        file("x.xyz", xyz(lattice=lambda k: f"4 0 0 0 5 0 0 0 {6 + k}")),
        file("x.xyz", xyz(), **READ),
    ),
    "a folder that is no Zarr": (
        r"or no Zarr folder \({}: {}\); write it again",
        file("x.zarr", lambda name: Path(name).mkdir()),
        file("r.zarr", store(), then=stored),
    ),
    "the store of a run that has not ended": (
        r"blocks are there; resume it, run_ensemble\(…, resume=True\)",
        file("r.zarr", store(blocks=1), dt=None),
        inside(_resumed),
    ),
    "the store of a run that absorbs": (
        "what was absorbed no longer follows the SDE; run it without them",
        file("r.zarr", store(boundary=sg.Absorbing(-9.0, 9.0))),
        file("r.zarr", store(), then=stored),
    ),
    "the store of a run on a ring": (
        "pass periods=, the length of it for each coordinate",
        file("r.zarr", store(boundary=sg.Periodic(0.0, 1.0)), dt=None),
        inside(_ring),
    ),
    "the store of a run that is lost": (
        "trajectories of {} were lost; lower dt, or start elsewhere",
        file(
            "r.zarr",
            store(sde=sg.ItoProcess(lambda x: x**3, 0.1), start=50.0, on_nonfinite="freeze"),
            dt=None,
        ),
        file("r.zarr", store(), then=stored),
    ),
}  # fmt: skip

_EITHER = ({"dt": 0.5}, {"times": range(6)})


class _Ragged:
    """An array whose rows are of several lengths."""

    def __array__(self, dtype=None, copy=None):
        return np.array([[1.0], [1.0, 2.0]])


def _holed():
    x = X.clone()
    x[4, 1] = torch.nan
    return x


def _equal(found, expected):
    assert found == expected, f"{found} is not {expected}"
