"""Files: what is read is what was written, or nothing is."""

import json
import os
import pickle
import re
import stat
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import save, save_file
from waiting import HANG

from sdegen.core.errors import CheckpointError
from sdegen.core.fingerprint import fingerprint
from sdegen.storage import FORMAT, atomic_write, load_tensors, save_tensors

TENSORS = {
    "b": torch.tensor([[1.5, -2.0, 0.25]], dtype=torch.float64),
    "a": torch.tensor([True, False]),
    "c": torch.tensor(7),
    "d": torch.tensor([0.1], dtype=torch.bfloat16),
    "e": torch.empty(0, 3),
}
METADATA = {"kind": "test", "step": 3, "nested": {"rate": 0.1, "list": [1, 2]}}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.safetensors"
    save_tensors(path, TENSORS, METADATA)
    return path


def test_what_is_read_is_what_was_written(file):
    tensors, metadata = load_tensors(file)
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)


def test_views_and_shared_tensors_are_written_as_they_look(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    save_tensors(tmp_path / "f", {"t": whole.T, "row": whole[1], "whole": whole}, {})
    tensors, _ = load_tensors(tmp_path / "f")
    assert torch.equal(tensors["t"], whole.T)
    assert torch.equal(tensors["row"], whole[1])


def test_the_same_tensors_give_the_same_bytes(file, tmp_path):
    again = tmp_path / "again"
    save_tensors(again, dict(reversed(TENSORS.items())), dict(reversed(METADATA.items())))
    assert again.read_bytes() == file.read_bytes()


def test_no_single_flipped_bit_is_read(tmp_path):
    """In every byte of a file, header, padding, checksums and numbers: the lowest bit, the one
    that tells capitals, and the highest."""
    file = tmp_path / "small"
    save_tensors(file, {"w": torch.tensor([1.0, 2.0])}, {"step": 1})
    good = file.read_bytes()
    for place in range(len(good)):
        for bit in (0, 5, 7):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            file.write_bytes(bad)
            with pytest.raises(CheckpointError, match=re.escape(str(file))):
                load_tensors(file)


def test_a_flipped_bit_is_named_by_its_key(file):
    bad = bytearray(file.read_bytes())
    place = bad.index(TENSORS["b"].numpy().tobytes())
    bad[place + 9] ^= 1
    file.write_bytes(bad)
    with pytest.raises(CheckpointError, match=r"run\.safetensors is damaged in its key 'b'"):
        load_tensors(file)


def test_a_truncated_file_is_refused_at_every_length(file):
    good = file.read_bytes()
    for length in range(0, len(good), 7):
        file.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=r"run\.safetensors is truncated, damaged"):
            load_tensors(file)


def test_a_newer_format_is_refused(file):
    entry = json.dumps({"format": FORMAT + 1, "metadata": {}, "tensors": {}, "sha256": "later"})
    file.write_bytes(save({}, {"sdegen": entry}))
    with pytest.raises(CheckpointError, match=rf"has format {FORMAT + 1}.*reads up to {FORMAT}"):
        load_tensors(file)


def test_tensors_of_somebody_else_are_refused(file):
    save_file({"w": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match="was not written by sdegen"):
        load_tensors(file)


def test_a_tensor_that_was_added_or_left_out_is_refused(file):
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({"b": TENSORS["b"], "a": TENSORS["a"], "c": TENSORS["c"]}, file, metadata)
    with pytest.raises(CheckpointError, match="key 'd' is stored without its sha256, or is not"):
        load_tensors(file)


class Bomb:
    """Would make a file if it were unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_is_never_run_however_it_is_named(file, tmp_path):
    exploded = tmp_path / "exploded"
    file.write_bytes(pickle.dumps(Bomb(str(exploded))))
    with pytest.raises(CheckpointError, match="pickles among them, are never opened"):
        load_tensors(file)
    torch.save({"w": Bomb(str(exploded))}, file)
    with pytest.raises(CheckpointError, match="pickles among them, are never opened"):
        load_tensors(file)
    assert not exploded.exists()
    pickle.loads(pickle.dumps(Bomb(str(exploded))))  # it would have
    assert exploded.exists()


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*absent"):
        load_tensors(tmp_path / "absent")


def test_fingerprint_sees_dtype_shape_and_every_value():
    base = torch.tensor([1.0, 2.0])
    others = [base.double(), base[None], torch.tensor([1.0, 2.0000002]), torch.tensor([2.0, 1.0])]
    others.append(torch.tensor([1.0, -2.0]))
    prints = {fingerprint(t) for t in [base, *others]}
    assert len(prints) == 6
    assert fingerprint(torch.stack([base, base], 1)[:, 0]) == fingerprint(base)  # strides do not


def test_a_written_file_is_readable_as_the_umask_says(tmp_path):
    old = os.umask(0o027)
    try:
        atomic_write(tmp_path / "f", b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def run(code, *arguments):
    """A fresh Python on its own: what is done to it stays with it."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        check=False, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="limits and signals of POSIX")
def test_a_full_disk_leaves_the_old_file_and_no_litter(file):
    """A limit on the size of a file stands for the end of the disk: the write fails part way."""
    before = file.read_bytes()
    done = run(
        """
        import resource, signal, sys, torch
        from sdegen.storage import save_tensors
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            save_tensors(sys.argv[1], {"w": torch.zeros(100_000)}, {})
        except OSError as error:
            print(error)
        """,
        file,
    )
    assert re.search(r"400,\d{3} bytes were needed, [\d,]+ are free", done.stdout), done
    assert "untouched" in done.stdout
    assert file.read_bytes() == before
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a fork")
def test_a_kill_while_saving_leaves_a_whole_file(tmp_path):
    """20 MB saved over and over, killed 12 times at moments that sweep through one save."""
    done = run(
        """
        import os, signal, sys, time, torch
        from sdegen.storage import load_tensors, save_tensors
        torch.set_num_threads(1)
        path, sizes = sys.argv[1], 5_000_000
        started = time.monotonic()
        save_tensors(path, {"w": torch.full((sizes,), 1.0)}, {"value": 1.0})
        once = time.monotonic() - started
        for attempt in range(12):
            child = os.fork()
            if child == 0:
                for value in range(2, 1000):
                    save_tensors(path, {"w": torch.full((sizes,), float(value))}, {"value": value})
            time.sleep(once * (attempt + 0.5) / 8)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            tensors, metadata = load_tensors(path)
            assert (tensors["w"] == metadata["value"]).all()
        print("whole")
        """,
        tmp_path / "f",
    )
    assert done.stdout == "whole\n", done
