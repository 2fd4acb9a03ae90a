"""Advice on ensembles, memory, stores and disks, followed."""

import errno
import math
import shutil
from pathlib import Path

import pytest
import torch

import sdegen as sg
from sdegen.engine import store_layout
from sdegen.storage import load_tensors, save_tensors
from tests.cures.common import BM, F64, FLOW, T, column, simulate
from tests.cures.places import inside, near, ours, patched

_FEW = {"cpu": 256}  # numbers of a block
_MOMENTS = sg.Moments()
_DECAY = 0.9**10  # of ten steps of 0.1 of dx = −x dt


def _run(sde=FLOW, x0=None, n=800, times=T, **options):
    """An ensemble in blocks of 256."""
    given = {"observables": [_MOMENTS], "rng": 0, "progress": False, "threads": 1} | options
    x0 = column(1.0, 1) if x0 is None else x0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdegen.engine.blocks._NUMBERS", _FEW)
        return sg.run_ensemble(sde, x0, times, trajectories=n, **given)


def _mean(run):
    return float(run.observables["moments"].mean[-1, 0])


def _merged():
    """Three blocks of two seeds, of one law and with nothing in common."""
    first, second = (_run(BM, n=512, rng=rng) for rng in (0, 1))
    assert _mean(first) != _mean(second)
    near((_mean(first) + _mean(second)) / 2, 1.0, 4.4 / 32)


def _kept(path, times):
    assert path.states.shape[0] == times
    near(float(path.final.mean()), 0.5, 4.4 / math.sqrt(len(path.final)))


_free = "sdegen.engine.memory._free_bytes"


def _full(kilobytes, program, *kinds):
    """The program, on a machine with so little memory."""
    return ours(patched(_free, lambda device: kilobytes * 1024, program), MemoryError, *kinds)


def _disk(kilobytes, program):
    """The program, on a disk with so little room."""

    def runs():
        with pytest.MonkeyPatch.context() as patch:
            usage = shutil.disk_usage(".")
            patch.setattr(
                "sdegen.engine.store_layout.shutil.disk_usage",
                lambda path: usage._replace(free=kilobytes * 1024),
            )
            return program()

    return ours(runs, OSError)


def _stored(**options):
    return _run(BM, store="run.zarr", **options)


def _cut(filled=3):
    """A run whose disk is full when it writes the states of the third block."""
    write, calls = store_layout.atomic_write, []

    def full(path, content):
        if "states/c" in str(path):
            calls.append(path)
            if len(calls) == filled:
                raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_layout, "atomic_write", full)
        _stored()


def _cut_and_resumed():
    with pytest.raises(OSError, match="No space"):
        _cut()
    again = _stored(resume=True)
    assert torch.equal(again.observables["moments"].mean, _run(BM).observables["moments"].mean)


def _cut_and_full():
    with pytest.raises(OSError, match="No space"):
        _cut()
    _disk(1, lambda: _stored(resume=True))()


def _resumed_to_the_same(**options):
    first = _stored(**options)
    again = _stored(**(options | {"resume": True}))
    assert torch.equal(again.observables["moments"].mean, first.observables["moments"].mean)


_LATER = torch.cat([T, T[1:] + T[-1]])


def _extended(n=800, times=T, **options):
    """The store of 800 trajectories, taken on: that of a run that was asked for all at once."""
    _stored()
    longer = _stored(n=n, times=times, extend=True, **options)
    shutil.rmtree("run.zarr")
    whole = _stored(n=n, times=times).observables["moments"]
    shutil.rmtree("run.zarr")
    assert torch.equal(longer.observables["moments"].variance, whole.variance)


def _cut_while_extended(then):
    """Another extension, of a store that a full disk stopped in one."""
    _stored()
    write = store_layout.atomic_write

    def full(path, content):
        if "states/c" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_layout, "atomic_write", full)
        with pytest.raises(OSError, match="No space"):
            _stored(n=900, extend=True)
    if then:
        _stored(n=900, resume=True)
    return _stored(n=1000, extend=True)


def _failing(sde):
    """Runs from 2 into infinity, in a store."""
    run = {"store": "run.zarr", "times": [0.0, 0.5, 1.0], "solver": sg.EulerMaruyama(50)}
    return lambda **options: _run(sde, column(2.0, 1), **(run | options))


_CUBE = sg.ItoProcess(lambda x: x**3, 0.0)


def _another_store():
    with pytest.raises(sg.NonFiniteError):
        _failing(_CUBE)()
    # what cures it makes another run: up to t = 0.1 it is (1/4 − 2t)^(−1/2)
    run = _failing(_CUBE)(times=[0.0, 0.1], solver=sg.EulerMaruyama(200), store="other.zarr")
    near(_mean(run), 0.05**-0.5, 0.1)


class _Nameless(sg.Observable):
    def measure(self, states, times):
        return {"highest": states.amax((0, 1))}

    def merge(self, left, right):
        return {"highest": torch.maximum(left["highest"], right["highest"])}

    def result(self, total, times):
        return total["highest"]


class _Highest(_Nameless):
    name = "highest"


class _Each(_Highest):
    def measure(self, states, times):
        return {"highest": states.amax(0)}


def _binned(count, full=False):
    """A histogram, on a machine that has no room for it."""

    def refuses(*args, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    if full:
        patched("torch.bincount", refuses, lambda: _binned(count))()
    run = _run(observables=[sg.Histogram(-2.0, 2.0, count)])
    near(float(run.observables["histogram"].counts[-1].sum()), 800, 0)


def _highest():
    near(float(_run(observables=[_Highest()]).observables["highest"]), 1.0, 0.0)


def _own_random_numbers(rows, rng):
    return torch.randn(rows, 1, dtype=F64)


def _from_rng(rows, rng):
    return torch.randn(rows, 1, generator=rng, dtype=F64)


def _drawn(x0, n=1000):
    near(_mean(_run(x0=x0, n=n)), 0.0, 4.4 * _DECAY / math.sqrt(n))


def _of_the_next_version(store):
    """A store, or a file, that a version with another format has written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdegen.engine.store_layout.FORMAT", 4)
        patch.setattr("sdegen.storage.FORMAT", 2)
        if store:
            return _stored(n=300)
        return save_tensors("x.safetensors", {"x": column(1.0)}, {})


_NEXT = "sdegen.engine.store_layout.FORMAT", "sdegen.storage.FORMAT"


def _read_by_the_next_version():
    _of_the_next_version(True)
    _of_the_next_version(False)
    patched(_NEXT[0], 4, lambda: _resumed_to_the_same(resume=True, n=300))()
    tensors, _ = patched(_NEXT[1], 2, lambda: load_tensors("x.safetensors"))()
    assert torch.equal(tensors["x"], column(1.0))


def _not_a_store():
    Path("run.zarr").mkdir()
    return _stored()


UNSEEN = {
    "a store of another run",
    "a store of a run that failed",
    "a pool of observables too large",
    "shapes that depend on the rows",
    "an observable that is none",
    "an observable without a word",
    "a start that takes no generator",
    "a disk too small for a store",
    "a disk too small to go on",
    "a disk too small to extend",
}
"""Rows whose text is put together, or says what to do without one of the verbs."""

FOLLOWED = {
    # --- ensembles
    "no threads": (
        "threads must be ≥ 1",
        lambda: _run(threads=0),
        lambda: near(_mean(_run(threads=None)), _DECAY, 1e-12),
    ),
    "one observable for a list": (
        "observables must be a list of Observables",
        lambda: _run(observables=_MOMENTS),
        lambda: near(_mean(_run(observables=[_MOMENTS])), _DECAY, 1e-12),
    ),
    "an observable without a name": (
        r"has no name; say name",
        lambda: _run(observables=[_Nameless()]),
        _highest,
    ),
    "an observable without a word": (
        "has the name '', but its result must be called something",
        lambda: _run(observables=[sg.Moments(name="")]),
        lambda: near(
            float(_run(observables=[sg.Moments(name="other")]).observables["other"].mean[-1, 0]),
            _DECAY,
            1e-12,
        ),
    ),
    "an observable that is none": (
        "one of your own is a subclass of Observable",
        lambda: _run(observables=[lambda states: states.mean()]),
        _highest,
    ),
    "shapes that depend on the rows": (
        "sum or average over the trajectories",
        lambda: _run(observables=[_Each()]),
        _highest,
    ),
    "a start from elsewhere": (
        "returned other states for the same rng, so that no seed",
        lambda: _run(x0=_own_random_numbers),
        lambda: _drawn(_from_rng),
    ),
    "a start that takes no generator": (
        "or a function x0.rows, rng=generator. that draws from rng",
        lambda: _run(x0=lambda rows: torch.zeros(rows, 1)),
        lambda: _drawn(_from_rng),
    ),
    "more blocks than streams": (
        r"random numbers of their own, but is \{\}; run some with another",
        patched("sdegen.engine.blocks._STREAMS", 2, lambda: _run(BM, n=768)),
        patched("sdegen.engine.blocks._STREAMS", 2, _merged),
    ),
    "a path that does not fit": (
        r"need about \{\} GiB, but \{\} GiB are free",
        _full(40, lambda: simulate(BM, column(0.5, 1000))),
        lambda: (
            _full(40, lambda: _kept(simulate(BM, column(0.5, 1000), keep_path=False), 1))(),
            _full(40, lambda: _kept(simulate(BM, column(0.5, 1000), [0.0, 1.0]), 2))(),
            _full(40, lambda: _kept(simulate(BM, column(0.5, 100)), 11))(),
        ),
    ),
    "a pool of observables too large": (
        "need about .* pass fewer threads or fewer times",
        _full(160, lambda: _run(threads=4, observables=[_Highest()])),
        lambda: (
            _full(160, lambda: _run(threads=1, observables=[_Highest()]))(),
            _full(160, lambda: _run(threads=4, times=[0.0, 1.0], observables=[_Highest()]))(),
        ),
    ),
    "observables that are too large": (
        "what the observables gather does not fit",
        ours(lambda: _binned(10**6, full=True), MemoryError),
        lambda: _binned(100),
    ),
    # --- stores
    "states that were not stored": (
        'no states were stored; pass store="run.zarr" to run_ensemble',
        lambda: _run().open(),
        inside(
            lambda: near(float(_run(store="run.zarr").open().states[-1].mean()), _DECAY, 1e-12)
        ),
    ),
    "nothing to go on with": (
        "resume=True goes on with a store; pass store=",
        lambda: _run(resume=True),
        inside(lambda: near(_mean(_run(resume=True, store="run.zarr")), _DECAY, 1e-12)),
    ),
    "extend without a store": (
        "extend=True takes a store on; pass store=",
        lambda: _run(extend=True),
        inside(lambda: _extended(n=900)),
    ),
    "a store that is not there to be extended": (
        "is not there to be extended; leave extend out to begin a run",
        inside(lambda: _stored(extend=True)),
        inside(lambda: _stored()),
    ),
    "a store that is extended already": (
        "end that first, with its arguments and resume=True",
        inside(lambda: _cut_while_extended(False)),
        inside(lambda: near(_mean(_cut_while_extended(True)), 1.0, 4.5 / math.sqrt(1000))),
    ),
    "a store extended to fewer trajectories": (
        "extend=True takes a store on to more; take another store",
        inside(lambda: (_stored(), _stored(n=700, extend=True))),
        inside(lambda: (_extended(n=900), _run(BM, store="other.zarr", n=700))),
    ),
    "a store extended to another run": (
        "or the arguments of the stored run with later times or more trajectories",
        inside(lambda: (_stored(), _stored(rng=1, times=_LATER, extend=True))),
        inside(lambda: (_extended(n=900), _extended(times=_LATER), _run(BM, store="other.zarr"))),
    ),
    "a store extended to other times": (
        r"pass torch.cat\(\[times, later\]\) with the times of the stored run",
        inside(lambda: (_stored(), _stored(times=1.5 * _LATER, extend=True))),
        inside(lambda: _extended(times=_LATER)),
    ),
    "a disk too small to extend": (
        "are free on this disk; make room, and extend it then",
        inside(lambda: (_stored(), _disk(40, lambda: _stored(n=900, extend=True))())),
        inside(lambda: _extended(n=900)),
    ),
    "a store or file of a newer version": (
        r"has format \{\}, and this version reads up to \{\}; install",
        inside(lambda: (_of_the_next_version(True), _stored(resume=True, n=300))),
        inside(_read_by_the_next_version),
    ),
    "a store that is there": (
        "exists; pass resume=True to go on with it, or another store",
        inside(lambda: (_stored(), _stored())),
        inside(lambda: (_resumed_to_the_same(), _run(BM, store="other.zarr"))),
    ),
    "a store of another run": (
        "take another store, or the arguments of that run",
        inside(lambda: (_stored(), _stored(resume=True, n=500))),
        inside(lambda: (_resumed_to_the_same(), _run(BM, store="other.zarr", n=500))),
    ),
    "a store of a run that failed": (
        "a run that is changed needs another",
        inside(lambda: _failing(_CUBE)()),
        inside(_another_store),
    ),
    "a folder that is no store": (
        r"is there, but is no store of a run",
        inside(_not_a_store),
        inside(lambda: near(_mean(_run(store="other.zarr")), _DECAY, 1e-12)),
    ),
    "a disk too small for a store": (
        r"the store needs \{\}, but \{\} are free on this disk",
        inside(_disk(40, _stored)),
        inside(
            lambda: (
                _disk(40, lambda: _stored(keep_path=False))(),
                shutil.rmtree("run.zarr"),
                _disk(40, lambda: _stored(times=[0.0, 1.0]))(),
                shutil.rmtree("run.zarr"),
                _disk(40, lambda: _stored(n=256))(),
            )
        ),
    ),
    "a disk too small to go on": (
        "are free on this disk; make room, and resume it then",
        inside(_cut_and_full),
        inside(_cut_and_resumed),
    ),
    "a disk that fills up": (
        "what is done stays where it is, and resume=True goes on",
        inside(ours(_cut, OSError)),
        inside(_cut_and_resumed),
    ),
}
