"""Dumps of atoms: positions, velocities, boxes and constraints as they were, sorted by id."""

import numpy as np
import pytest
import torch

import sdegen as sg

F64 = torch.float64
BOX = np.array([4.0, 5.0, 6.0])


def walk(*shape, seed=0):
    z = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return z.cumsum(0)


X = 0.3 * walk(40, 12, 3)  # half a box is more than six standard deviations of a move
V = walk(40, 12, 3, seed=1)


def dump(path, columns, *, every=100, form="{!r}", low=(0.0, 0.0, 0.0), time=None, ends="pp pp pp",
         change=lambda k, lines: lines):  # fmt: skip
    """A dump as LAMMPS writes it, atoms in an order that changes."""
    text = []
    for k in range(len(X)):
        head = ["ITEM: TIME", form.format(time * k)] if time else []
        head += ["ITEM: TIMESTEP", str(every * k), "ITEM: NUMBER OF ATOMS", "12"]
        head += [f"ITEM: BOX BOUNDS {ends}"]
        head += [f"{a!r} {a + b!r}" for a, b in zip(low, BOX.tolist(), strict=True)]
        order = np.random.default_rng(k).permutation(12)
        rows = [
            " ".join(
                str(int(c[k, i])) if name in ("id", "type", "ix", "iy", "iz")
                else form.format(float(c[k, i]))
                for name, c in columns.items()
            )
            for i in order
        ]  # fmt: skip
        text += change(k, [*head, "ITEM: ATOMS " + " ".join(columns), *rows])
    path.write_text("\n".join(text) + "\n")
    return path


IDS = {"id": np.tile(np.arange(1, 13) * 3, (40, 1)), "type": np.ones((40, 12))}


def axes(prefix, values, suffix=""):
    return {f"{prefix}{a}{suffix}": values[..., j] for j, a in enumerate("xyz")}


def test_a_dump_on_the_line_keeps_its_bits(tmp_path):
    columns = IDS | axes("", X, "u") | axes("v", V)
    path = dump(tmp_path / "x.lammpstrj", columns)
    stored = sg.read_states(path, dt=0.5)
    assert stored.phase_space
    assert not stored.wrapped
    assert stored.periods.tolist() == [BOX.tolist()] * 12
    assert torch.equal(stored.block(0, 40), torch.stack([X, V], 1)[:, None])
    assert stored.times.tolist() == [0.5 * k for k in range(40)]
    alone = sg.read_states(path, velocities=False, dt=0.5)
    assert torch.equal(alone.block(0, 40), X[:, None])
    scaled = sg.read_states(path, dt=0.5, units={"length": 0.1, "time": 1e-3})
    assert torch.allclose(scaled.block(0, 40), torch.stack([0.1 * X, 100 * V], 1)[:, None])
    assert torch.allclose(scaled.periods[0], torch.from_numpy(0.1 * BOX))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("turns", [False, True])
def test_a_dump_in_the_box_is_unwrapped(tmp_path, scaled, turns):
    low = np.array([-1.0, 0.5, 0.0])
    count = np.floor((X.numpy() - low) / BOX)
    inside = X.numpy() - count * BOX
    assert count.any()
    columns = IDS | (axes("", (inside - low) / BOX, "s") if scaled else axes("", inside))
    if turns:
        columns |= axes("i", count)
    stored = sg.read_states(dump(tmp_path / "x.dump", columns, low=low.tolist()), dt=0.5)
    assert stored.wrapped != turns
    flat = stored.block(0, 40, unwrapped=True)[:, 0]
    if turns:
        assert torch.allclose(stored.block(0, 40)[:, 0], X, atol=1e-12)
    assert torch.allclose(flat.diff(dim=0), X.diff(dim=0), atol=1e-12)


def test_axes_that_are_not_periodic(tmp_path):
    columns = IDS | axes("", X)
    path = dump(tmp_path / "x.dump", columns, ends="ff pp ss")
    stored = sg.read_states(path, dt=0.5)
    assert stored.periods[0].tolist() == [0.0, 5.0, 0.0]
    assert torch.equal(stored.block(0, 40), X[:, None])


def test_six_digits_are_those_of_lammps(tmp_path):
    columns = IDS | axes("", X, "u") | axes("v", V)
    stored = sg.read_states(dump(tmp_path / "x.dump", columns, form="{:g}"), dt=0.5)
    assert stored.digits == 6
    kept, exact = stored.block(0, 40), torch.stack([X, V], 1)[:, None]
    half = stored.rounding_at(kept)
    assert bool(((kept - exact).abs() <= half * (1 + 1e-9)).all())
    assert float(((kept - exact).abs() / half).mean()) == pytest.approx(0.5, abs=0.05)
    fixed = sg.read_states(
        dump(tmp_path / "y.dump", columns, form="{:.3f}"), dt=0.5, units={"velocity": 2.0}
    )
    assert fixed.rounding.flatten(1)[:, 0].tolist() == [5e-4, 1e-3]


def test_a_start_on_a_lattice_hides_no_digits(tmp_path):
    x = X.clone()
    x[:20] = torch.arange(36, dtype=F64).reshape(12, 3) / 2
    path = dump(tmp_path / "x.dump", IDS | axes("", x, "u"), form="{:g}")
    assert sg.read_states(path, dt=0.5).digits == 6


def test_digits_of_what_is_unwrapped_are_those_of_the_box(tmp_path):
    count = np.floor(X.numpy() / BOX)
    columns = IDS | axes("", X.numpy() - count * BOX) | axes("i", count)
    stored = sg.read_states(dump(tmp_path / "x.dump", columns, form="{:g}"), dt=0.5)
    kept = stored.block(0, 40)[:, 0]
    assert stored.digits is None
    assert bool(((kept - X).abs() <= stored.rounding_at(kept) * (1 + 1e-9)).all())
    assert float(stored.rounding) == 5e-6  # of numbers below 10


def test_times_of_a_dump_are_taken(tmp_path):
    columns = IDS | axes("", X, "u")
    stored = sg.read_states(dump(tmp_path / "x.dump", columns, time=0.25))
    assert stored.dt == pytest.approx(0.25, rel=1e-12)
    again = sg.read_states(
        dump(tmp_path / "x.dump", columns, time=0.25), dt=0.5, units={"time": 2.0}
    )
    assert again.dt == pytest.approx(0.5, rel=1e-12)


def test_lammps_is_read_as_ase_reads_it(tmp_path):
    lammpsrun = pytest.importorskip("ase.io.lammpsrun")
    columns = IDS | axes("", X.numpy() % BOX) | axes("v", V)
    path = dump(tmp_path / "x.dump", columns, form="{:.8g}")
    with path.open() as file:
        frames = lammpsrun.read_lammps_dump_text(file, index=slice(None))
    ours = sg.read_states(path, velocities=False, dt=0.5).block(0, 40)[:, 0]
    assert torch.equal(ours, torch.from_numpy(np.stack([f.positions for f in frames])))
    both = sg.read_states(path, dt=0.5).block(0, 40)[:, 0]
    speed = np.stack([f.get_velocities() for f in frames])  # in units of ASE
    factor = float(speed[0, 0, 0]) / float(both[0, 1, 0, 0])
    assert np.allclose(speed, factor * both[:, 1].numpy(), rtol=1e-9)


def _atoms(**arrays):
    ase = pytest.importorskip("ase")
    frames = []
    for k in range(len(X)):
        atoms = ase.Atoms("ArHe" * 6, positions=X[k].numpy(), cell=BOX, pbc=True)
        for name, array in arrays.items():
            atoms.arrays[name] = np.asarray(array[k])
        frames.append(atoms)
    return frames


def _written(path, frames, columns=None):
    import ase.io

    ase.io.write(path, frames, format="extxyz", columns=columns)
    return path


def test_extended_xyz_keeps_what_is_written(tmp_path):
    frames = _atoms(vel=V.numpy())
    for k, atoms in enumerate(frames):
        atoms.info["time"] = 0.25 * k
    path = _written(tmp_path / "x.xyz", frames)
    stored = sg.read_states(path, rounding=0.0)
    exact = torch.stack([X, V], 1)[:, None]
    assert stored.phase_space
    assert stored.times.tolist() == [0.25 * k for k in range(40)]
    assert stored.periods.tolist() == [BOX.tolist()] * 12
    assert float((stored.block(0, 40) - exact).abs().max()) <= 5.1e-9
    # ASE writes eight decimals
    assert sg.read_states(path).rounding == 5e-9
    assert torch.equal(
        sg.read_states(path, velocities=False).block(0, 40), stored.block(0, 40)[:, :, 0]
    )


def test_extended_xyz_by_hand_keeps_its_bits(tmp_path):
    pytest.importorskip("ase")
    lines = []
    for k in range(len(X)):
        lines += [
            "12",
            f'Lattice="4 0 0 0 5 0 0 0 6" Properties=id:I:1:species:S:1:pos:R:3 step={k}',
        ]
        order = np.random.default_rng(k).permutation(12)
        lines += [f"{i} Ar " + " ".join(map(repr, X[k, i].tolist())) for i in order]
    (tmp_path / "x.extxyz").write_text("\n".join(lines) + "\n")
    stored = sg.read_states(tmp_path / "x.extxyz", dt=0.1)
    assert torch.equal(stored.block(0, 40), X[:, None])
    assert (stored.rounding, stored.digits) == (0.0, None)


def test_folded_xyz_unwraps(tmp_path):
    frames = _atoms()
    for atoms in frames:
        atoms.wrap()
    stored = sg.read_states(_written(tmp_path / "x.xyz", frames), dt=0.1)
    assert stored.wrapped
    moves = stored.block(0, 40, unwrapped=True)[:, 0].diff(dim=0)
    assert torch.allclose(moves, X.diff(dim=0), atol=2.1e-8)  # two roundings


def test_constraints_of_xyz_are_taken(tmp_path):
    constraints = pytest.importorskip("ase.constraints")
    frames = _atoms()
    for atoms in frames:
        atoms.positions[[1, 4]] = 0.5
        atoms.set_constraint(constraints.FixAtoms([1, 4]))
    columns = ["symbols", "positions", "move_mask"]
    stored = sg.read_states(_written(tmp_path / "x.xyz", frames, columns), dt=0.1)
    assert stored.fixed.any(1).nonzero().flatten().tolist() == [1, 4]
    assert stored.fixed.all(1).nonzero().flatten().tolist() == [1, 4]
    for atoms in frames:
        atoms.set_constraint(constraints.FixCartesian([2], mask=(False, True, False)))
    stored = sg.read_states(_written(tmp_path / "x.xyz", frames, columns), dt=0.1)
    assert stored.fixed.nonzero().tolist() == [[2, 1]]


def test_momenta_of_xyz_are_divided_by_masses(tmp_path):
    frames = _atoms()
    for k, atoms in enumerate(frames):
        atoms.set_velocities(V[k].numpy())
    path = _written(tmp_path / "x.xyz", frames, ["symbols", "positions", "momenta"])
    stored = sg.read_states(path, dt=0.1)
    assert torch.allclose(stored.block(0, 40)[:, 0, 1], V, atol=5.1e-9)


def _changed(d, change, columns=None, **options):
    columns = columns or IDS | axes("", X, "u")
    return sg.read_states(dump(d / "x.dump", columns, change=change, **options), dt=1.0)


def _cut(k, lines):
    return lines[:-3] if k == 39 else lines


def _xyz(d, change):
    frames = _atoms()
    change(frames)
    return sg.read_states(_written(d / "x.xyz", frames), dt=1.0)


def _set(frames, k, **values):
    for name, value in values.items():
        setattr(frames[k], name, value)


def _other_box(k, lines):
    return [line.replace("4.0", "4.1") if k == 7 and i in (5, 6) else line
            for i, line in enumerate(lines)]  # fmt: skip


BAD = {
    "a dump that is cut off": (lambda d: _changed(d, _cut), "is cut off after line"),
    "other atoms": (
        lambda d: _changed(d, lambda k, t: [*t[:3], "11", *t[4:-1]] if k == 5 else t),
        r"frame 5 of .* \(step 500\) has 11 atoms, but frame 0 has 12"),
    "other columns": (
        lambda d: _changed(d, lambda k, t: [s.replace("xu yu", "yu xu") if k == 5 else s
                                            for s in t]), "frame 5 of .* has columns"),
    "an id twice": (
        lambda d: _changed(d, lambda k, t: [*t[:-1], t[-2]] if k == 5 else t), "or one twice"),
    "no ids": (
        lambda d: _changed(d, lambda k, t: t, {"type": IDS["type"]} | axes("", X, "u")),
        "no column id"),
    "no positions": (lambda d: _changed(d, lambda k, t: t, IDS), "none of positions"),
    "a cell too few": (
        lambda d: _changed(d, lambda k, t: [*t[:-1], "1 2"] if k == 3 else t),
        "has 2 cells, but a frame names 5 columns"),
    "text": (
        lambda d: _changed(d, lambda k, t: [s.replace("3 1 ", "3 1 a") for s in t]),
        "column xu of step 0"),
    "no dump": (
        lambda d: _changed(d, lambda k, t: ["# of a run", *t]), "line 1 of .* '# of a run'"),
    "a tilted box": (
        lambda d: _changed(d, lambda k, t: [f"{s} 0.5" if i in (5, 6, 7) else s
                                            for i, s in enumerate(t)], ends="xy xz yz pp pp pp"),
        "is tilted"),
    "a box that changes": (lambda d: _changed(d, _other_box), r"to \[0, 4.1\] in frame 7"),
    "steps that are not constant": (
        lambda d: _changed(d, lambda k, t: [t[0], "950", *t[2:]] if k == 10 else t),
        "frames 9 and 10 of .* are of steps 900 and 950, and most are 100 steps apart"),
    "a frame twice": (
        lambda d: _changed(d, lambda k, t: [*t, *t] if k == 10 else t),
        "frames 10 and 11 .* written twice"),
    "no dt": (
        lambda d: sg.read_states(dump(d / "x.dump", IDS | axes("", X, "u"))), "pass dt="),
    "times that contradict": (
        lambda d: sg.read_states(dump(d / "x.dump", IDS | axes("", X, "u"), time=0.25), dt=1.0),
        "dt = 1 contradicts the times of .*: from 0 to 1 they advance by 0.25"),
    "velocities of another file": (
        lambda d: sg.read_states(dump(d / "x.dump", IDS | axes("", X, "u")), velocities=V),
        "pass False"),
    "a NaN": (
        lambda d: _changed(d, lambda k, t: t, IDS | axes("", X.numpy() * np.where(
            np.arange(40 * 36).reshape(40, 12, 3) == 36 * 4 + 7, np.nan, 1.0), "u")),
        r"nan in frame 4, trajectory 0, coordinate \(2, 1\)"),
    "ids that are no numbers": (
        lambda d: _changed(d, lambda k, t: [s.replace("9 1 ", "a9 1 ") for s in t]),
        "not what stands there in a text dump"),
    "a time that is no number": (
        lambda d: _changed(d, lambda k, t: ["ITEM: TIME", "noon", *t]), "is 'noon'"),
    "a box of xyz without lengths": (
        lambda d: _xyz(d, lambda f: [a.set_cell([0, 5, 6]) for a in f]), "without lengths"),
    "a layout of a dump": (
        lambda d: sg.read_states(dump(d / "x.dump", IDS | axes("", X, "u")), dt=1.0,
                                 layout="time"), "layout='time' says nothing"),
    "half of a dump": (
        lambda d: sg.read_states(dump(d / "x.dump", IDS | axes("", X, "u")), dt=1.0,
                                 phase_space=True), "phase_space=True says nothing"),
    "a NaN of few digits": (
        lambda d: _changed(d, lambda k, t: t, IDS | axes("", X.numpy() * np.where(
            np.arange(40 * 36).reshape(40, 12, 3) == 36 * 4 + 7, np.nan, 1.0)), form="{:g}"),
        "nan in frame 4, trajectory 0"),
    "periods of axes alone": (
        lambda d: sg.read_states(dump(d / "x.dump", IDS | axes("", X, "u")), dt=1.0,
                                 periods=[4.0, 5.0, 6.0]), "with as many axes"),
    "atoms that were reordered": (
        lambda d: _xyz(d, lambda f: f.__setitem__(3, f[3][::-1])),
        "atom 0 of .* is Ar in frame 0 and He in frame 3"),
    "a tilted box of xyz": (
        lambda d: _xyz(d, lambda f: [a.set_cell([[4, 0, 0], [1, 4, 0], [0, 0, 4]]) for a in f]),
        "is tilted"),
    "a box of xyz that changes": (
        lambda d: _xyz(d, lambda f: f[3].set_cell([4, 5, 7])), "changes in frame 3"),
    "fewer atoms of xyz": (
        lambda d: _xyz(d, lambda f: f.__setitem__(3, f[3][:-1])), "frame 3 of .* has 11 atoms"),
    "no xyz": (
        lambda d: ((d / "x.xyz").write_text("2\n\nA 0 0 0\n"),
                   sg.read_states(d / "x.xyz", dt=1.0)),
        "no extended XYZ"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_dumps_are_refused_by_name(name, tmp_path, as_user):
    call, text = BAD[name]
    with pytest.raises((ValueError, TypeError), match=text):
        call(tmp_path)
