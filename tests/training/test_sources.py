"""Data as people have them: arrays on disk, data sets and loaders, to the bits of a tensor."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
)

import sdegen as sg
from sdegen.core.noise import Streams
from sdegen.training.doors import open_source

F64 = torch.float64
SHORT = sg.FitConfig(steps=9, batch_size=16, warmup=3, checkpoint_every=4, validate_every=5)


def drawn(*shape, seed=0, dtype=F64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


X, Y = drawn(50, 3), drawn(50, 1, seed=1)


class Square(sg.Loss):
    """(module(x) − y)², with noise on x; y are the labels, or the first column."""

    def __call__(self, module, batch, noise):
        x = batch.rows + 0.1 * noise.normal_like(batch.rows)
        y = x[:, :1] if batch.labels is None else batch.labels
        return (module(x) - y).square().sum(1)


class Seen(sg.Loss):
    """A loss that keeps the rows that it was given."""

    def __init__(self):
        self._rows = []

    def __call__(self, module, batch, noise):
        self._rows.append(batch.rows.clone())
        return module(batch.rows).square().sum(1)


class Rows(Dataset):
    """Some rows, told one by one; of a function of each where there is one."""

    def __init__(self, rows=X, labels=None, change=lambda x: x):
        self.rows, self.labels, self.change = rows, labels, change
        self.asked = []

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        self.asked.append(i)
        x = self.change(self.rows[i])
        return x if self.labels is None else (x, self.labels[i])


class Flow(IterableDataset):
    """The same rows, one after the other."""

    def __init__(self, rows=X, change=lambda x: x):
        self.rows, self.change = rows, change

    def __iter__(self):
        return map(self.change, self.rows)


def fitted(data, loss=None, config=SHORT, inputs=3, **options):
    line = nn.utils.skip_init(nn.Linear, inputs, 1, dtype=F64)  # draws nothing
    nn.init.constant_(line.weight, 0.1), nn.init.zeros_(line.bias)
    result = sg.fit(line, data, Square() if loss is None else loss, config, rng=5, **options)
    return torch.cat([line.weight.detach().flatten(), line.bias.detach()]), result.losses


def alike(one, other):
    return torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def jittered(x):
    """A row with noise of all three libraries."""
    return x + 0.1 * torch.rand(()) + 0.1 * np.random.rand() + 0.1 * random.random()  # noqa: NPY002


def counting():
    """A function with a state of its own."""
    own = np.random.default_rng(0)
    return lambda x: x + own.standard_normal()


@pytest.fixture(params=["path", "memmap", "narrow", "zarr"])
def on_disk(request, tmp_path):
    """The rows X on disk, in float64 or float32, and the same in memory."""
    rows = X.float() if request.param == "narrow" else X
    if request.param == "zarr":
        zarr = pytest.importorskip("zarr")
        array = zarr.create_array(
            str(tmp_path / "x.zarr"), shape=(50, 3), chunks=(7, 3), dtype="f8"
        )
        array[:] = rows.numpy()
        return array, rows
    np.save(tmp_path / "x.npy", rows.numpy())
    path = tmp_path / "x.npy"
    return path if request.param == "path" else np.load(path, mmap_mode="r"), rows


# --- the bits of a tensor


def test_rows_on_disk_give_the_bits_of_rows_in_memory(on_disk):
    array, rows = on_disk
    assert alike(fitted(array), fitted(rows))
    assert alike(fitted(array, labels=Y), fitted(rows, labels=Y))
    bits = fitted(array, validation=array, augment=lambda x, stream: x + stream.normal((16, 3)))
    there = fitted(rows, validation=rows, augment=lambda x, stream: x + stream.normal((16, 3)))
    assert alike(bits, there)


def test_a_dataset_gives_the_bits_of_a_tensor_and_is_asked_for_its_rows_alone():
    data = Rows()
    assert alike(fitted(data), fitted(X))
    assert len(data.asked) == 50 + 2 + 9 * 16
    assert alike(fitted(Rows(labels=Y)), fitted(X, labels=Y))
    assert alike(fitted(TensorDataset(X, Y)), fitted(X, labels=Y))
    assert alike(fitted(TensorDataset(X)), fitted(X))
    assert alike(fitted(Rows(X.numpy())), fitted(X))


def test_an_array_on_disk_is_never_read_whole(tmp_path):
    """4 GiB of which 4 steps read 64 rows, and the door 256."""
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", "<f4", (2**20, 2**10))
    array[::4096, 0] = 1.0  # a sparse file
    array.flush()
    config = dataclasses.replace(SHORT, steps=4)
    losses = fitted(np.load(tmp_path / "x.npy", mmap_mode="r"), config=config, inputs=2**10)[1]
    assert len(losses) == 4
    assert (tmp_path / "x.npy").stat().st_blocks * 512 < 2**26


def test_big_endian_and_half_precision_are_converted_as_torch_converts(tmp_path):
    np.save(tmp_path / "big.npy", X.numpy().astype(">f8"))
    assert alike(fitted(tmp_path / "big.npy"), fitted(X))
    np.save(tmp_path / "half.npy", X.numpy().astype("f2"))
    assert alike(fitted(tmp_path / "half.npy"), fitted(X.half()))


# --- what comes as it comes


def test_a_loader_gives_each_row_once_in_an_epoch():
    """Steps of 16 are cut from batches of 7, epochs of 50 follow one another."""
    for data in (Flow(), DataLoader(Rows(), 7), DataLoader(Rows(), 7, shuffle=True)):
        loss = Seen()
        fitted(data, loss, dataclasses.replace(SHORT, steps=25))  # 400 rows: 8 epochs
        seen = torch.cat(loss._rows)
        for epoch in seen.view(8, 50, 3):
            # a step shuffles its rows, which end in two epochs at most
            assert epoch.shape == (50, 3)
        for row in X:
            assert int((seen == row).all(1).sum()) == 8


def test_the_rows_of_a_step_stand_in_no_order():
    """Times are stratified along a batch: rows of a sorted loader would each meet one time."""
    rows = torch.arange(16, dtype=F64)[:, None].expand(16, 3)
    loss = Seen()
    fitted(DataLoader(Rows(rows), 16), loss, dataclasses.replace(SHORT, steps=200))
    first = torch.stack([step[0, 0] for step in loss._rows])
    # uniform over 16 rows: mean 7.5, standard deviation 4.6
    assert float(first.mean()) == pytest.approx(7.5, abs=4.4 * 4.61 / 200**0.5)


def test_what_loaders_and_data_sets_draw_follows_rng():
    """The order, and augmentations by torch, NumPy and Python; the caller's generators stay."""
    own = torch.Generator().manual_seed(3)
    makes = (
        lambda: Rows(change=jittered),
        lambda: Flow(change=jittered),
        lambda: DataLoader(Rows(change=jittered), 7, shuffle=True),
        lambda: DataLoader(Rows(), 7, shuffle=True, generator=own),
    )
    for make in makes:
        ends = []
        for seed in (1, 2):
            torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)  # noqa: TID251, NPY002
            before = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
            ends.append(fitted(make()))
            assert torch.equal(torch.get_rng_state(), before[0])
            assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
            assert random.getstate() == before[2]
        assert alike(*ends)
    assert torch.equal(own.get_state(), torch.Generator().manual_seed(3).get_state())
    assert not alike(ends[0], fitted(X))


WORKERS = """
import torch, sdegen as sg, numpy as np
from torch.utils.data import DataLoader, Dataset
torch.set_num_threads(1)

class Rows(Dataset):
    def __len__(self):
        return 30
    def __getitem__(self, i):
        return torch.full((3,), i / 30) + 0.1 * torch.rand(3) + 0.1 * np.random.rand()

class Square(sg.Loss):
    def __call__(self, module, batch, noise):
        return (module(batch.rows) - 1).square().sum(1)

ends = []
for steps, folder in ((5, "run"), (12, "run"), (12, "whole")):
    line = torch.nn.Linear(3, 1)
    torch.nn.init.ones_(line.weight), torch.nn.init.zeros_(line.bias)
    config = sg.FitConfig(steps=12, batch_size=8, checkpoint_every=5)
    def press(rows, stream):
        global calls
        calls += 1
        if calls == steps and steps < 12:
            raise KeyboardInterrupt
        return rows
    calls = 0
    loader = DataLoader(Rows(), 4, shuffle=True, num_workers=2)
    try:
        sg.fit(line, loader, Square(), config, rng=0, folder=folder, resume=True, augment=press)
    except KeyboardInterrupt:
        print("pressed")
    ends.append(line.weight.tolist())
print(ends[1] == ends[2], ends[0] != ends[1])
"""


def test_workers_draw_the_same_after_a_resume(programs, tmp_path):
    assert programs.run(code=WORKERS, folder=tmp_path).split("\n")[-2:][0] == "True True"


# --- killed and resumed


@pytest.mark.parametrize("kind", ["memmap", "dataset", "iterable", "loader"])
def test_a_run_that_ended_early_ends_in_the_same_bits(kind, tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    make = {
        "memmap": lambda: tmp_path / "x.npy",
        "dataset": lambda: Rows(change=jittered),
        "iterable": lambda: Flow(change=jittered),
        "loader": lambda: DataLoader(Rows(change=jittered, labels=Y), 7, shuffle=True),
    }[kind]
    whole = fitted(make())
    calls = []

    def stops(rows, stream):
        calls.append(1)
        if len(calls) == 7:
            raise ZeroDivisionError
        return rows

    with pytest.raises(ZeroDivisionError):
        fitted(make(), folder=tmp_path / "run", augment=stops)
    again = fitted(make(), folder=tmp_path / "run", resume=True, augment=stops)
    assert alike(again, whole)
    assert len(calls) == 7 + 9 - 4


def test_an_iterable_that_does_not_repeat_itself_is_not_resumed(tmp_path):
    """In the third epoch its generator is where it is after one, in the process that resumes."""
    fitted(Flow(change=counting()), folder=tmp_path)
    max(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(sg.CheckpointError, match=r"gave other rows than before .* of epoch 2"):
        fitted(Flow(change=counting()), folder=tmp_path, resume=True)


def test_a_data_set_with_a_generator_of_its_own_is_told():
    with pytest.warns(sg.AccuracyWarning, match=r"data\[0\] is another each time .* of its own"):
        fitted(Rows(change=counting()))


def test_other_data_are_not_resumed(tmp_path):
    np.save(tmp_path / "x.npy", X.numpy())
    np.save(tmp_path / "other.npy", X.numpy() + 1e-9)
    fitted(tmp_path / "x.npy", folder=tmp_path / "run")
    for other in (tmp_path / "other.npy", Rows(), DataLoader(Rows(), 5)):
        with pytest.raises(ValueError, match="another run: its data were others; pass the same"):
            fitted(other, folder=tmp_path / "run", resume=True)
    fitted(tmp_path / "x.npy", folder=tmp_path / "run", resume=True)


# --- what is refused


class NoLength(Dataset):
    def __getitem__(self, i):
        return X[i]


def bad(row, value):
    rows = X.clone()
    rows[row, 1] = value
    return rows


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Rows(X[:0]), ValueError, "data is empty: its Dataset has no rows"),
        (lambda: Flow(X[:0]), ValueError, "data is empty: an epoch of it gives no batch"),
        (lambda: Rows(bad(7, float("nan"))), ValueError, "not finite, among them row 7; remove"),
        (lambda: Flow(bad(7, float("inf"))), ValueError, "row 7 of batch 0 of epoch 0; remove"),
        (lambda: Rows(X.long()), TypeError, "data must be floating point, but is torch.int64"),
        (lambda: Rows(X[:, 0]), ValueError, r"rows of shape \(n, \*event\).*but gave \(1,\)"),
        (lambda: Rows(change=lambda x: {"x": x}), TypeError, r"x or \(x, label\).*gave a dict"),
        (lambda: Rows(change=lambda x: "x"), TypeError, r"x or \(x, label\).* gave a list|gave"),
        (lambda: Rows(change=lambda x: (x, x, x)), TypeError, "a tensor of shape.*, a tensor of"),
        (lambda: Rows(change=lambda x: print), TypeError, "give x or .* gave a function; return"),
        (lambda: Rows(change=lambda x: x[: 1 + (x[0] > 0)]), ValueError, "rows of several shapes"),
        (NoLength, TypeError, "data is a NoLength without __len__; give it one, or derive"),
        (lambda: iter(X), TypeError, "which ends after one epoch; derive a class from"),
        (lambda: "x.csv", ValueError, "data must be the path of a .npy file, but is 'x.csv'; op"),
        (lambda: "no.npy", FileNotFoundError, "data: there is no file no.npy"),
        (lambda: {"x": X}, TypeError, "data must be a tensor.*, but is a dict"),
    ],
)
def test_what_no_rows_can_be_read_from_is_refused(make, error, message, as_user):
    with pytest.raises(error, match=message):
        fitted(make())


@pytest.mark.parametrize(
    ("dtype", "shape", "error", "message"),
    [
        ("u1", (5, 3), TypeError, "data must be floating point, but is uint8; dequantise"),
        ("f4", (5,), ValueError, r"must have shape \(n, \*event\) with n ≥ 1, but has shape \(5,"),
    ],
)
def test_arrays_on_disk_are_refused_by_kind_and_shape(dtype, shape, error, message, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(shape, dtype))
    with pytest.raises(error, match=message):
        fitted(tmp_path / "x.npy")


def test_a_row_that_is_not_finite_is_named_when_it_is_read(tmp_path):
    """Of 5000 the door has looked at 256; what was learned stays, and so does the checkpoint."""
    rows = drawn(5000, 3)
    rows[1234, 2] = torch.nan
    np.save(tmp_path / "x.npy", rows.numpy())
    config = dataclasses.replace(SHORT, steps=400, batch_size=64, checkpoint_every=1)
    with pytest.raises(
        ValueError, match=r"data has rows that are not finite, among them row 1234"
    ):
        fitted(tmp_path / "x.npy", config=config, folder=tmp_path / "run")
    assert len(list((tmp_path / "run").glob("step-*"))) == 2
    # the labels of a data set are looked at too
    labels = Y.clone()
    labels[3] = torch.nan
    with pytest.raises(ValueError, match=r"the labels of data has rows .* row 3; remove"):
        fitted(Rows(labels=labels))


def test_labels_are_said_once_and_are_those_of_the_rows(as_user):
    with pytest.raises(ValueError, match=r"labels were given beside data, a Rows; give them as p"):
        fitted(Rows(), labels=Y)
    data = Rows(labels=Y)
    source, stream = open_source("data", data), Streams(0, "train").block(0)
    data.labels = None
    with pytest.raises(ValueError, match="gave labels for some rows, and for others none"):
        source.read(0, stream, 4, slice(None))
    with pytest.raises(ValueError, match=r"7 rows with labels of shape \(1,\), which are not one"):
        fitted(DataLoader(Batches(), batch_size=None))
    sampler = DistributedSampler(Rows(), num_replicas=2, rank=0)
    with pytest.raises(ValueError, match="has a DistributedSampler, and ranks take their share"):
        fitted(DataLoader(Rows(), 5, sampler=sampler))


class Batches(Dataset):
    """Whole batches, with one label for all of it."""

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[:7], Y[:1, 0]


def test_validation_has_an_end(as_user):
    with pytest.raises(TypeError, match=r"validation must have a known number of rows.*a Flow; c"):
        fitted(X, validation=Flow())
    whole = fitted(X, validation=X[:14])
    for others in (Rows(X[:14]), DataLoader(Rows(X[:14]), 5), X[:14].numpy()):
        assert alike(fitted(X, validation=others), whole)


# --- a score


def test_classes_of_pairs_are_those_of_labels(tmp_path):
    """A score with classes is trained on pairs (x, label) to the bits of labels=."""
    x, labels = drawn(60, 2, dtype=torch.float32), torch.arange(60) % 3
    vp = sg.VP(sg.LinearBeta(0.1, 20.0))
    config = sg.TrainConfig(steps=6, batch_size=16)

    def trained(data, classes=3, **options):
        network = sg.MLP(2, width=8, depth=1, classes=classes, rng=0)
        model = sg.ScoreModel(network, vp)
        sg.train(model, data, config, rng=0, **options)
        return torch.cat([p.flatten() for p in model.parameters()])

    pairs = TensorDataset(x, labels)
    given = trained(x, labels=labels, validation=x, validation_labels=labels)
    assert torch.equal(trained(pairs, validation=pairs), given)
    assert not torch.equal(trained(TensorDataset(x, labels.flip(0))), trained(pairs))
    with pytest.raises(ValueError, match="knows no classes"):
        trained(pairs, classes=0)
    with pytest.raises(ValueError, match=r"labels must lie in 0 … 2, .* reach from 0 to 5"):
        trained(TensorDataset(x, torch.arange(60) % 6))
    with pytest.raises(ValueError, match="classes = 3, but no labels were given"):
        trained(TensorDataset(x))
    np.save(tmp_path / "x.npy", x.numpy())
    assert torch.equal(trained(tmp_path / "x.npy", labels=labels), trained(x, labels=labels))


def test_the_scale_of_data_on_disk_is_told(tmp_path):
    np.save(tmp_path / "x.npy", (100 * X + 300).numpy())
    model = sg.ScoreModel(sg.MLP(3, width=8, rng=0), sg.VP(sg.LinearBeta(0.1, 20.0)))
    config = sg.TrainConfig(steps=1, batch_size=8)
    with pytest.warns(sg.AccuracyWarning, match=r"mean [23]\d\d and .*deviation \d+.*0 ± 1"):
        sg.train(model, tmp_path / "x.npy", config, rng=0)
    for data in (torch.full((20, 3), 0.3), Rows(torch.full((20, 3), 0.3)), X[:1]):
        with pytest.raises(ValueError, match=r"data are constant: all of the \d+ rows"):
            sg.train(model, data, config, rng=0)
    assert model.event_shape == (3,)
