"""Program: the Python that gives what is seen on the page, at one of its frames.

It makes the same SDE, simulates from the same start by the same steps and seed, solves for the
same density, and prints the numbers of the page; it draws both at that time.
"""

from __future__ import annotations

from sdegen.app.explore.family import Family
from sdegen.app.explore.questions import side_of
from sdegen.app.explore.run import Run


def program_of(family: Family, run: Run) -> str:
    """Return a program that prints the readings of a run at its frame."""
    setting = run.setting
    made = family.write(setting.parameters)
    libraries = "import numpy as np\n" * run.on_line + "import torch\n\nimport sdegen as sg\n"
    imports = libraries
    if made.startswith("import"):
        first, _, made = made.partition("\n\n")
        imports = f"{first}\n\n{libraries}\n"
    else:
        imports += "\n\n"
    body = _on_line(run) if run.on_line else _in_space(run)
    title = family.title.replace('"', "'")
    return (
        f'"""{title}, as it was seen on the page of sdegen explore at t = {run.t:g}."""\n\n'
        f"{imports}{made}\n\n{body}"
    )


def _times(run: Run) -> str:
    """Return the line of the times."""
    end, steps = float(run.times[-1]), len(run.times) - 1
    return f"times = torch.linspace(0.0, {end!r}, {steps + 1}, dtype=torch.float64)"


def _in_space(run: Run) -> str:
    """Return the part of a program of several coordinates."""
    s = run.setting
    shape = ", ".join(map(str, (s.particles, *run.event)))
    rest = f"x0[:, 1] -= {s.mean!r}  # velocities start about 0\n" if run.sde.phase_space else ""
    return f"""generator = torch.Generator().manual_seed({s.seed})
x0 = {s.mean!r} + {s.std!r} * torch.randn(({shape}), generator=generator)
{rest}{_times(run)}
path = sg.simulate(
    sde, x0, times, solver=sg.{type(run.solver).__name__}(), rng={s.seed}, on_nonfinite="freeze"
)
k = {run.frame * s.stride}  # the step that was seen
x = path.states[k].double().flatten(1)
x = x[x.isfinite().all(1)]
print(f"t = {{float(times[k]):g}}, {{len(x)}} particles")
for j in range(x.shape[1]):
    mean, variance = float(x[:, j].mean()), float(x[:, j].var())
    print(f"x{{j + 1}}: mean = {{mean:.6g}}, variance = {{variance:.6g}}")
"""


def _on_line(run: Run) -> str:
    """Return the part of a program on a line."""
    s, grid = run.setting, run.grid
    lines = [f"grid = sg.Grid({grid.low!r}, {grid.high!r}, {grid.cells})"]
    if not grid.even:
        nodes = ", ".join(repr(x) for x in grid.nodes.tolist())
        lines = [f"grid = sg.Grid.of(torch.tensor([{nodes}], dtype=torch.float64))"]
    if s.std == 0:
        lines += [f"start = {s.mean!r}", f"x0 = torch.full(({s.particles}, 1), start)"]
    else:
        lines += [
            f"start = grid.gaussian({s.mean!r}, {s.std!r})",
            f"generator = torch.Generator().manual_seed({s.seed})",
            f"uniform = torch.rand({s.particles}, generator=generator, dtype=torch.float64)",
            "x0 = start.quantile(uniform).float()[:, None]",
        ]
    lines += [
        _times(run),
        f"path = sg.simulate(\n    sde, x0, times, solver=sg.{type(run.solver).__name__}(), "
        f'rng={s.seed}, on_nonfinite="freeze"\n)',
        "solver = sg.FokkerPlanck(sde, grid)",
        f"densities = solver.solve(start, times[::{s.stride}])",
        "",
        f"frame = {run.frame}  # what was seen",
        f"x, density = path.states[frame * {s.stride}], densities.at(frame)",
        "x = x[x.isfinite().all(1)].double()",
        "t = float(densities.times[frame])",
        'print(f"t = {t:g}, {len(x)} particles")',
        'print(f"mean = {float(x.mean()):.6g}, of the density {float(density.mean):.6g}")',
        'print(f"variance = {float(x.var()):.6g}, of the density {float(density.variance):.6g}")',
    ]  # fmt: skip
    if "distance" in run.readings():
        lines += [
            "distance = sg.metrics.kolmogorov_smirnov(x, density)",
            'print(f"distance = {distance:.6g}, of exact samples {0.8687 / len(x)**0.5:.6g}")',
        ]
    lines += _passage(run)
    lines += [
        "figure = sg.plots.density_and_particles(densities, path, times=sorted({0.0, t}))",
        'figure.savefig("explored.png")',
    ]
    return "\n".join(lines) + "\n"


def _passage(run: Run) -> list[str]:
    """Return the lines that ask for the mean first-passage time, where there is one."""
    try:
        side, ends = side_of(run)
    except ValueError:
        return []
    return [
        f"side = sg.Grid({side.low!r}, {side.high!r}, {side.cells})  # up to the level",
        "try:",
        f"    passage = sg.FokkerPlanck(sde, side, {ends!r}).first_passage(moments=1)",
        f"    mean = np.interp({run.setting.mean!r}, passage.x, passage.moments[0])",
        f'    print(f"mean first-passage time from {run.setting.mean:g} to {run.level:g} = '
        '{mean:.6g}")',
        "except ValueError as reason:",
        "    print(reason)",
    ]
