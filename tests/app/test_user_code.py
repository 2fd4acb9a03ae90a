"""Objects named at the command line: found where they are, and nothing evaluated."""

import pytest

from sdegen.app.user_code import is_reference, load_object, loaded_files


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    return tmp_path


def test_a_name_in_a_file_is_found_with_its_imports(here):
    (here / "units_of_mine.py").write_text("two = 2\n")
    (here / "well.py").write_text(
        "import units_of_mine\n\nclass Deep:\n    force = units_of_mine.two * 21\n"
    )
    assert load_object("well.py:Deep.force", "sde") == 42
    assert str((here / "well.py").resolve()) in loaded_files()


def test_a_name_in_a_module_is_found():
    from sdegen.sde.processes import OrnsteinUhlenbeck

    assert load_object("sdegen.sde.processes:OrnsteinUhlenbeck", "sde") is OrnsteinUhlenbeck


def test_a_changed_file_of_the_same_second_and_size_is_read_anew(here):
    import sdegen.app.user_code as user_code

    for value in ("0.5", "0.7"):
        (here / "same.py").write_text(f"sigma = {value}\n")
        user_code._LOADED.clear()
        assert load_object("same.py:sigma", "diffusion") == float(value)


def test_nothing_is_evaluated(here):
    (here / "well.py").write_text("def f(x):\n    open('evaluated', 'w')\n")
    for reference in (
        "well.py:f(0)",
        "well.py:f(x).y",
        "well.py:__import__('os')",
        "x - x**3",
        "lambda x: x",
        ":f",
    ):
        assert not is_reference(reference)
        with pytest.raises(
            ValueError,
            match=r"^sde must be file.py:name or module:name, but is .*nothing in it is evaluated",
        ):
            load_object(reference, "sde")
    assert not (here / "evaluated").exists()


def test_what_is_not_there_is_named(here):
    (here / "well.py").write_text("drift = 1\n")
    with pytest.raises(ValueError, match=r"^sde: there is no file .*/valley\.py\.$"):
        load_object("valley.py:drift", "sde")
    with pytest.raises(ValueError, match=r"^sde: well\.py has no 'drfit'; there is drift\.$"):
        load_object("well.py:drfit", "sde")
    with pytest.raises(
        ValueError,
        match=r"^data: there is no module 'no_such_module'; a file is named file\.py:name\.$",
    ):
        load_object("no_such_module:x", "data")


def test_what_a_file_raises_passes_through_and_is_known_to_be_its_own(here):
    (here / "broken.py").write_text("raise ValueError('of the user')\n")
    with pytest.raises(ValueError, match=r"^of the user$"):
        load_object("broken.py:x", "sde")
    assert str((here / "broken.py").resolve()) in loaded_files()
    (here / "lacking.py").write_text("import a_package_nobody_has\n")
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        load_object("lacking:x", "sde")
