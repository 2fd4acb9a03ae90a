"""Files of version 0.1: read with the numbers that it gave, or refused by their version.

`tests/fixtures/v0_1` was written by 0.1, once. Bits are those of a machine and of torch: on others
numbers are close, and a store is refused with what differs.
"""

import json
import shutil
import sys

import pytest
import torch

import sdegen as sg
from sdegen.app.cli import main
from sdegen.app.config_file import read_config
from sdegen.app.configs.commands import COMMANDS
from sdegen.core.fingerprint import difference, to_spec
from sdegen.engine.format_1 import run_spec_of_format_1, without_library_code
from sdegen.storage import load_tensors

sys.path.insert(0, str(__import__("pathlib").Path(__file__).parent / "fixtures" / "v0_1"))
import cases

SAME_MACHINE = json.loads((cases.FOLDER / "machine.json").read_text()) == cases.machine()
# densities are solved with other roundings than 0.1's
SOLVED = {"density.safetensors:p", "density.safetensors:stationary"}
SOLVED |= {f"certificate.safetensors:{name}" for name in ("density", "law")}
COMMAND = {"simulate-ensemble": "simulate", "fokker-planck-absorbing": "fokker-planck"}


def check_equal(numbers, file):
    """What is said now is what 0.1 said: to the bit on its machine, elsewhere to eight digits."""
    answers, _ = load_tensors(file)
    assert sorted(numbers) == sorted(answers)
    for name, then in answers.items():
        now = numbers[name]
        assert (now.shape, now.dtype) == (then.shape, then.dtype), name
        if SAME_MACHINE:
            assert torch.equal(now, then), name
        else:
            torch.testing.assert_close(now, then, rtol=1e-4, atol=1e-5, msg=name)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", cases.models())
def test_models_say_the_same(name, one_thread):
    model = sg.ScoreModel.load(cases.FOLDER / "models" / f"{name}.safetensors")
    check_equal(cases.numbers_of_model(model), cases.FOLDER / "models" / f"{name}.answers")


@pytest.mark.parametrize("name", cases.models())
def test_models_are_written_as_before(name, tmp_path):
    cases.models()[name].save(tmp_path / "m.safetensors")
    then = cases.FOLDER / "models" / f"{name}.safetensors"
    assert (tmp_path / "m.safetensors").read_bytes() == then.read_bytes()


@pytest.mark.parametrize("name", cases.calibrations())
def test_calibrations_say_the_same(name, one_thread):
    solver, free = cases.calibrations()[name]
    file = cases.FOLDER / "calibrations" / f"{name}.safetensors"
    made = sg.Calibration.load(file, cases.flow(), solver=None if free else solver)
    out = sg.simulate(cases.flow(), cases.starts_of_flow(3, 2), made.times, solver=made.solver)
    numbers = {"final": out.final, "error": torch.tensor(made.error)}
    check_equal(numbers, file.with_suffix(".answers"))


def store_of(name, folder):
    shutil.unpack_archive(cases.FOLDER / "stores" / f"{name}.zip", folder)
    return folder / "run.zarr"


def blocks(store):
    return sorted(int(entry.name) for entry in (store / "progress/records/c").iterdir())


def chunks(store):
    return {
        str(file.relative_to(store)): file.read_bytes()
        for file in store.rglob("c/**/*")
        if file.is_file()
    }


@pytest.mark.skipif(not SAME_MACHINE, reason="a store belongs to a machine and versions")
@pytest.mark.parametrize("name", cases.ensembles())
def test_stores_are_gone_on_with_to_the_same_bits(name, tmp_path):
    store = store_of(name, tmp_path)
    whole = chunks(store)
    run = cases.ensemble(name, store, resume=True)
    check_equal(cases.numbers_of_ensemble(run), cases.FOLDER / "stores" / f"{name}.answers")
    for b in blocks(store)[len(blocks(store)) // 3 :]:  # as if it had been killed after a third
        for part in ("progress/records", "states", "nonfinite"):
            for chunk in [p for p in chunks(store) if p.startswith(part)]:
                if chunk.split("/c/")[1].split("/")[int(part == "states")] == str(b):
                    (store / chunk).unlink()
    assert len(chunks(store)) < len(whole)
    run = cases.ensemble(name, store, resume=True)
    check_equal(cases.numbers_of_ensemble(run), cases.FOLDER / "stores" / f"{name}.answers")
    assert chunks(store) == whole


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The runs of 0.1 in a folder, and this folder the current one."""
    shutil.copytree(cases.FOLDER / "runs", tmp_path, dirs_exist_ok=True)
    (tmp_path / "well.py").write_text(cases.WELL)
    for config in tmp_path.glob("*/config.toml"):
        config.write_text(config.read_text().replace("@", str(tmp_path.resolve())))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.setattr("sdegen.app.user_code._LOADED", {})
    return tmp_path


@pytest.mark.parametrize("name", cases.COMMANDS)
def test_configs_are_read(name, folder):
    file = read_config(folder / name / "config.toml", COMMANDS)
    assert file.command == COMMAND.get(name, name)
    assert file.versions["sdegen"] == "0.1.0"


@pytest.mark.parametrize("name", [name for name in cases.COMMANDS if name != "demo"])
def test_runs_are_repeated_to_the_same_bits(name, folder, one_thread):
    assert main(["run", f"{name}/config.toml", "--out", "again"]) == 0
    now, then = cases.tensors(folder / "again"), cases.tensors(folder / name)
    assert then.keys() <= now.keys()  # errors of moments came later
    for key, tensor in then.items():
        assert (now[key].shape, now[key].dtype) == (tensor.shape, tensor.dtype)
        if SAME_MACHINE and key not in SOLVED:
            assert torch.equal(now[key], tensor), key
        elif key in SOLVED:
            assert float((now[key] - tensor).abs().max()) <= 1e-12 * float(tensor.abs().max()), key


def test_a_training_is_gone_on_with_to_the_same_bits(folder, one_thread):
    then = (folder / "train" / "model.safetensors").read_bytes()
    (folder / "train" / "model.safetensors").unlink()
    assert main(["train", "--resume", "train"]) == 0
    if SAME_MACHINE:
        assert (folder / "train" / "model.safetensors").read_bytes() == then


def test_a_store_of_another_version_is_refused_with_the_version_named(tmp_path):
    store = store_of("box", tmp_path)
    attributes = json.loads((store / "zarr.json").read_text())
    about = attributes["attributes"]["sdegen"]
    about["versions"]["sdegen"] = "7.0"
    (store / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(
        ValueError, match=r"sdegen is 7\.0 there and .* here; go on with the versions"
    ):
        cases.ensemble("box", store, resume=True)
    about["run"]["words of later"] = 1
    (store / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(ValueError, match=r"words of later is only there; go on with sdegen 7\.0"):
        cases.ensemble("box", store, resume=True)
    about["format"] = 99
    (store / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(
        ValueError, match="format 99, and this version reads up to 3; install a newer"
    ):
        cases.ensemble("box", store, resume=True)


@pytest.mark.skipif(SAME_MACHINE, reason="it is the machine of the stores")
def test_a_store_of_another_machine_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there and .* here; go on with the versions"):
        cases.ensemble("box", store_of("box", tmp_path), resume=True)


def test_what_a_store_knows_a_run_by_is_translated():
    then = json.loads((cases.FOLDER / "specs.json").read_text())
    now = without_library_code({name: to_spec(x) for name, x in cases.objects().items()})
    assert {
        name: gap
        for name in then
        if (gap := difference(run_spec_of_format_1({"x": then[name]})["x"], now[name]))
    } == {}
