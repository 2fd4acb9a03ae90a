"""Config files: what is written is read back, and what does not fit is told with its line."""

import dataclasses
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sdegen.app.config_file import ConfigFile, read_config, sha256_of, to_toml
from sdegen.app.configs.fokker_planck import FokkerPlanckConfig
from sdegen.app.configs.simulate import SimulateConfig
from sdegen.app.configs.train import TrainRunConfig


@dataclasses.dataclass(frozen=True)
class Plan:
    name: str
    count: int = 3
    step: float = 0.5
    start: tuple[float, ...] = (0.0,)
    noise: float | str | None = None
    shape: tuple[int, ...] | None = None
    kind: Literal["a", "b"] = "a"
    loud: bool = False

    def __post_init__(self):
        if self.count < 1:
            raise ValueError(f"count must be ≥ 1, but is {self.count}.")


KINDS = {"plan": Plan}


@pytest.fixture
def read(tmp_path):
    def read(text):
        path = tmp_path / "config.toml"
        path.write_text(text)
        return read_config(path, KINDS)

    return read


numbers = st.floats(allow_nan=False, allow_infinity=False)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # on a busy machine
@given(
    name=st.text(st.characters(codec="utf-8", exclude_characters="\r")),
    count=st.integers(1, 2**63 - 1),
    step=numbers,
    start=st.lists(numbers).map(tuple),
    noise=st.none() | numbers | st.text("abc:."),
    shape=st.none() | st.lists(st.integers(1, 99)).map(tuple),
    kind=st.sampled_from("ab"),
    loud=st.booleans(),
)
def test_a_config_survives_its_file(tmp_path_factory, **values):
    plan = Plan(**values)
    path = tmp_path_factory.mktemp("toml") / "config.toml"
    path.write_bytes(
        to_toml(ConfigFile("plan", plan, {"/a b/c.py": "00ff"}, {"torch": "2.13.0"})).encode()
    )
    back = read_config(path, KINDS)
    assert back == ConfigFile("plan", plan, {"/a b/c.py": "00ff"}, {"torch": "2.13.0"})
    for field in dataclasses.fields(Plan):
        assert type(getattr(back.config, field.name)) is type(getattr(plan, field.name))


def test_an_integer_may_stand_for_a_number(read):
    config = read('command = "plan"\nname = "x"\nstep = 2\nstart = [1, 2.5]\nnoise = 1').config
    assert (config.step, config.start, config.noise) == (2.0, (1.0, 2.5), 1.0)
    assert type(config.step) is type(config.noise) is float


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'command = "plan"\n\n# a word\nname = "x"\ncuont = 4\n',
            "line 5: plan has no key 'cuont'; did you mean 'count'?",
        ),
        (
            'command = "plan"\nname = "x"\nzzz = 4\n',
            "line 3: plan has no key 'zzz'; the keys of plan are name, count",
        ),
        (
            'command = "plan"\nname = "x"\nstart = [\n  1.0,\n\n  2.0,\n]\nzzz = 4',
            "line 8: plan has no key 'zzz'",
        ),
        (
            'command = "plan"\nname = "x"\n\n# why\nzzz = [\n  1,\n\n]\n',
            "line 5: plan has no key 'zzz'",
        ),
        ('command = "plan"\nname = "x"\n[zzz]\nq = 1\n', "line 3: plan has no key 'zzz'"),
        (
            'command = "plan"\nname = "x"\ncount = "4"\n',
            "line 3: count must be an integer, but is '4'",
        ),
        (
            'command = "plan"\nname = "x"\ncount = true\n',
            "line 3: count must be an integer, but is True",
        ),
        (
            'command = "plan"\nname = "x"\ncount = 4.0\n',
            "line 3: count must be an integer, but is 4.0",
        ),
        (
            'command = "plan"\nname = "x"\nstep = false\n',
            "line 3: step must be a number, but is False",
        ),
        (
            'command = "plan"\nname = "x"\nstart = 1.0\n',
            "line 3: start must be an array, each entry a number, but is 1.0",
        ),
        (
            'command = "plan"\nname = "x"\nstart = ["1"]\n',
            "line 3: start must be an array, each entry a number, but is ['1']",
        ),
        (
            'command = "plan"\nname = "x"\nnoise = []\n',
            "line 3: noise must be a number or a string, but is []",
        ),
        (
            'command = "plan"\nname = "x"\nkind = "c"\n',
            "line 3: kind must be one of 'a', 'b', but is 'c'",
        ),
        (
            'command = "plan"\nname = "x"\nloud = 1\n',
            "line 3: loud must be true or false, but is 1",
        ),
        ('command = "plan"\nname = "x"\ncount = 0\n', "line 3: count must be ≥ 1, but is 0."),
        ('command = "plan"\n', "config.toml: the key 'name' is missing."),
        ('\ncommand = "paln"\n', "line 2: command must be one of 'plan', but is 'paln'"),
        ('name = "x"\n', "config.toml: command must be one of 'plan', but is missing."),
        (
            'command = "plan"\nname = "x"\n[inputs]\na = 1\n',
            "line 3: inputs must be a table of strings.",
        ),
        (
            'command = "plan"\nname = \n',
            "cannot be read as TOML: Invalid value (at line 2, column 8)",
        ),
        (
            'command = "plan"\nname = "x"\nname = "y"\n',
            "cannot be read as TOML: Cannot overwrite a value (at line 3",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_its_line(read, text, told):
    with pytest.raises(ValueError, match=r"config\.toml") as refusal:
        read(text)
    assert told in str(refusal.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(ValueError, match=r"^there is no file .*absent\.toml\.$"):
        read_config(tmp_path / "absent.toml", KINDS)
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"x\.toml cannot be read as TOML: .*codec can't decode"):
        read_config(tmp_path / "x.toml", KINDS)


@pytest.mark.parametrize(
    "config", [SimulateConfig(sde="well.py:sde", x0=(-1.0, 2.0)), TrainRunConfig(seed=2**63 - 1)]
)
def test_the_configs_of_commands_survive_their_files(tmp_path, config):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(ConfigFile("it", config, {}, {})))
    assert read_config(path, {"it": type(config)}).config == config


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert (
        sha256_of(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_infinity_is_refused_by_the_config_and_not_by_the_file(tmp_path):
    (tmp_path / "config.toml").write_text('command = "it"\nsde = "a:b"\n\nt1 = inf\n')
    with pytest.raises(ValueError, match=r"line 4: t1 must be finite, but is inf\.$"):
        read_config(tmp_path / "config.toml", {"it": SimulateConfig})


def test_a_run_of_version_0_1_names_its_boundary_walls(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        'command = "simulate"\nsde = "well.py:well"\nwalls = "absorbing"\nlow = 0.0\nhigh = 1.0\n'
        '[versions]\nsdegen = "0.1.0"\n'
    )
    config = read_config(path, {"simulate": SimulateConfig}).config
    assert (config.boundary, config.low, config.high) == ("absorbing", 0.0, 1.0)


def test_a_density_of_version_0_1_names_its_physical_walls(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        'command = "fokker-planck"\nsde = "well.py:well"\nphysical_walls = true\n'
        '[versions]\nsdegen = "0.1.0"\n'
    )
    assert read_config(path, {"fokker-planck": FokkerPlanckConfig}).config.truncation_is_physical
