"""What is measured along paths: one result whoever computes the blocks; the lost are left out."""

import hashlib

import pytest
import torch

import sdegen as sg

F64 = torch.float64
TIMES = torch.linspace(0, 1, 9)
EULER = sg.EulerMaruyama(substeps=2)
WANTED = (
    sg.MeanSquaredDisplacement(),
    sg.MeanSquaredDisplacement(origins="start", name="from the start"),
    sg.PowerSpectrum(),
    sg.ResidenceTimes((-0.2, 0.2), (-0.4, 0.4), bins=8, from_start=True),
)


def along(n=3000, **options):
    options = {"solver": EULER, "observables": WANTED, "rng": 7, "progress": False} | options
    sde = options.pop("sde", sg.ItoProcess(lambda x, t: x - x**3, 0.7))
    x0 = options.pop("x0", torch.zeros(1, 2))
    return sg.run_ensemble(sde, x0, TIMES, trajectories=n, **options)


def digest(run):
    """One sha256 of all numbers of all results."""
    total = hashlib.sha256()
    for result in run.observables.values():
        for value in vars(result).values():
            total.update(torch.as_tensor(0 if value is None else value).contiguous().numpy())
    return total.hexdigest()


def test_one_result_over_threads_stores_and_lost_blocks(tmp_path, small_blocks):
    path = tmp_path / "a.zarr"
    found = {
        digest(along(threads=threads, store=store))
        for threads, store in ((1, None), (2, None), (3, path))
    }
    for b in (0, 3):
        (path / "progress" / "records" / "c" / str(b) / "0").unlink()
    found.add(digest(along(store=path, resume=True)))
    assert len(found) == 1
    torch.set_num_threads(2)
    try:
        one = {digest(along(n=400, threads=threads)) for threads in (1, 2)}
    finally:
        torch.set_num_threads(1)
    assert len(one) == 1


def test_the_lost_are_left_out(small_blocks):
    """Rows that explode: the rest has the numbers of a run without them."""
    sde = sg.ItoProcess(lambda x: x**3, 0.3)
    x0 = torch.zeros(1200, 1, dtype=F64)
    x0[::100] = 30.0
    run = along(1200, sde=sde, x0=x0, on_nonfinite="freeze")
    path = sg.simulate(sde, x0, TIMES, solver=EULER, rng=7, on_nonfinite="freeze")
    assert run.nonfinite == 12
    msd = sg.mean_squared_displacement(path)
    spectrum = sg.power_spectrum(path)
    assert (msd.count, msd.lost, spectrum.count, spectrum.lost) == (1188, 12, 1188, 12)
    observed = run.observables
    torch.testing.assert_close(observed["displacement"].total, msd.total, rtol=1e-11, atol=0)
    torch.testing.assert_close(observed["spectrum"].density, spectrum.density, rtol=1e-11, atol=0)


def test_the_states_that_are_held_count_in_the_memory(monkeypatch, as_user):
    monkeypatch.setattr("sdegen.engine.memory._free_bytes", lambda device: 2**22)
    with pytest.raises(
        MemoryError, match=r"blocks of 25000 trajectories at 9 times .* fewer times"
    ):
        along(10**5, observables=[sg.PowerSpectrum()], threads=1)
