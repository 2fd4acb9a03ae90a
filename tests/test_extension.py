"""What it takes to add something: each in a temporary folder, in as many files as is said.

A loss of one's own takes none (`tests/training/`), an observable none and a boundary one
(`tests/test_recipes.py`), a command two (`tests/app/test_own_command.py`).
"""

import inspect
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import sdegen as sg
from tests.solvers import test_contract as contract
from tests.test_recipes import PAGE, run

PACKAGE = Path(sg.__file__).parent


def test_a_linear_sde_takes_two_files_and_its_models_are_saved_and_loaded(tmp_path):
    """The class of the recipe in a file of its own, and a line of the stub."""
    package = tmp_path / "sdegen"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    recipe = PAGE[PAGE.index("## Adding an SDE") :]
    program = recipe[recipe.index("```python\n") + 10 : recipe.index("\n```\n", 10)]
    (package / "diffusion" / "rotation.py").write_text(program)
    stub = package / "__init__.pyi"
    stub.write_text(stub.read_text() + "from .diffusion.rotation import Rotation as Rotation\n")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import json, torch, sdegen as sg
                sde = sg.Rotation(t_min=0.01)
                model = sg.ScoreModel(sg.MLP(2, width=8, depth=1, rng=0), sde)
                model.save("m.safetensors")
                again = sg.ScoreModel.load("m.safetensors")
                x, t = torch.linspace(-1, 1, 6).reshape(3, 2), torch.tensor([0.1, 0.5, 0.9])
                same = torch.equal(model.score(x, t), again.score(x, t))
                print(json.dumps([sg.__file__, type(again.sde).__name__, again.sde.t_min, same]))
                """
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(done.stdout) == [str(package / "__init__.py"), "Rotation", 0.01, True]


def test_a_solver_joins_one_list_and_is_tested():
    """The recipe's midpoint rule passes all that is asked of a row of the contract."""
    solver = run("Adding a solver")["Midpoint"]()
    asked = [
        check
        for name, check in vars(contract).items()
        if name.startswith("test_")
        and list(inspect.signature(check).parameters) == ["solver", "sde"]
    ]
    assert len(asked) >= 5
    for check in asked:
        check(solver, contract.ODE)
