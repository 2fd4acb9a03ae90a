"""The benchmarks run, count what they say they count, and make the page that is committed."""

import math
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import sdegen as sg
from benchmarks import (
    backends,
    certificates,
    channels,
    ensemble_peers,
    gpu,
    held_out,
    identities,
    imports,
    large_ensembles,
    lookup,
    one_data_set_all_models,
    peers,
    random_problems,
    solver_costs,
    step_bias,
    table,
    time_grids,
    update_parts,
    verdicts,
)
from benchmarks.lookup import load, names

BENCHMARKS = table.RESULTS.parent


def test_backends_agree_and_count():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchsde by itself warns about its own defaults
        tables = backends.main(quick=True)
    rows = {
        (row["method"], row["steps"]): row
        for title, rows in tables.items()
        if title.startswith("reverse")
        for row in rows
    }
    # the same increments give the same path
    ours, theirs = rows["EulerMaruyama", 100], rows["TorchSDE euler", 100]
    assert ours["std over exact"] == pytest.approx(theirs["std over exact"], abs=1e-9)
    assert {name: row["nfe"] for (name, steps), row in rows.items() if steps == 20} == {
        "EulerMaruyama": 20,
        "Heun": 40,
        "TorchSDE euler": 20,
        "TorchSDE heun": 40,
        "TorchSDE srk": 60,
        "DDIM": 20,
    }


def test_one_correlated_trajectory_is_judged_rightly():
    """Of 80 runs of a thousand correlation times; a row is off by 4.5 σ once in 10⁵ times."""
    rows = {row["identity"]: row for row in identities.table(20_000, 20, 80)}
    naive = rows.pop("⟨x²⟩ = T, of independent states")
    assert naive["rejected at 5 %"] > 0.4
    assert len(rows) >= 3
    for name, row in rows.items():
        assert row["rejected at 5 %"] == pytest.approx(0.05, abs=4.5 * 0.0244), name
        assert row["Kolmogorov–Smirnov p"] > 1e-5, name


@pytest.mark.slow
def test_a_grid_made_for_edms_path_is_better_than_the_best_peer(monkeypatch):
    """With five evaluations in the plane, beside one peer on its best grid, to save time."""
    few = [p for p in peers.deterministic() if p.name in ("IPNDM", "UniPC 2 bh2 x0")]
    monkeypatch.setattr(peers, "deterministic", lambda: few)
    monkeypatch.setattr(time_grids, "MORE", {})
    monkeypatch.setattr(time_grids, "EFFORT", {5: (24, 1)})
    tables = time_grids.main(quick=True)
    (line,) = tables["error over that of the best of all peers on the best of its grids"]
    assert line["reached"] == line["cells"] == 1
    (row,) = tables["each cell"]
    assert row["nfe"] == 5


def test_processes_share_a_large_ensemble(programs, monkeypatch):
    def run(line, **options):
        """Without the seconds that imports take; ranks are told what torchrun tells them."""
        *torchrun, name, trajectories, threads = line
        count = int(torchrun[-1].rpartition("=")[2]) if len(torchrun) > 1 else 1
        ranks = programs.ranks(count, trajectories, threads, file=name)
        ends = [rank.communicate() for rank in ranks]
        assert not any(rank.returncode for rank in ranks), ends
        return SimpleNamespace(stdout="".join(out for out, _ in ends))

    monkeypatch.setattr(large_ensembles.subprocess, "run", run)
    one, two = large_ensembles.processes(quick=True)  # to one sha256, or it fails
    assert (one["processes"], two["processes"]) == (1, 2)
    (row, _) = large_ensembles.sizes(quick=True)
    assert row["peak memory in MiB"] < 1000


def test_a_timing_on_a_gpu_compiles_once(monkeypatch):
    """What is compiled is kept for an SDE object, a kind of state and its strides."""
    seen = []

    def simulate(sde, x0, *args, simulate=sg.simulate, **options):
        seen.append((sde, x0.is_contiguous(), x0.stride()))
        return simulate(sde, x0, *args, **options)

    monkeypatch.setattr(sg, "simulate", simulate)
    for _ in range(2):
        gpu.ours(5, 2, torch.device("cpu"))
    assert seen == 2 * [(gpu.WELL, True, (1, 1))]
    row = gpu.waiting(7, torch.device("cpu"), compiled=False)
    assert row["steps without waiting"] == "not checked: (c) needs a GPU"


def test_a_rehearsal_on_a_cpu_says_what_it_cannot_tell(monkeypatch):
    """Compiled there is another path, and no distance to eager; nothing waits for a GPU."""
    monkeypatch.setattr(gpu, "ours", lambda n, *rest: torch.ones(n, 1))
    monkeypatch.setattr(gpu, "waiting", lambda *rest: {})
    eager, compiled, *_ = gpu.correctness(torch.device("cpu"), quick=True)
    assert eager["largest distance to eager"] == 0.0
    assert compiled["largest distance to eager"].startswith("none to tell: on a CPU a compiled")


@pytest.mark.parametrize("problem", [channels.CONSTANT, channels.OF_STATE], ids=lambda p: p.name)
def test_peers_with_channels_have_one_noise(problem):
    """One step from 0 has covariance dt B Bᵀ; five standard errors: once in 10⁵ runs."""
    n, B = 10_000, channels.B
    for name, (run, kind) in channels.methods(problem, n, torch.float32, compiled=False).items():
        assert kind == "eager"
        dt = 1.0 if name.startswith("torchsde") else ensemble_peers.DT  # to t = 1 in any number
        exact, x = dt * B @ B.T, run(1)
        error = ((exact.square() + exact.diag() * exact.diag()[:, None]) / n).sqrt()
        assert bool(((x.T @ x / n - exact).abs() < 5 * error).all()), name
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    for ours, theirs in (("drift", "drift_of"), ("diffusion", "diffusion_of")):
        mine, peer = getattr(problem, ours), getattr(problem, theirs)(np)(x.numpy())
        mine = mine(x) if callable(mine) else mine
        torch.testing.assert_close(torch.as_tensor(peer), mine)


@pytest.mark.parametrize("problem", solver_costs.PROBLEMS, ids=lambda p: p.name)
def test_solvers_tend_to_the_formula_that_they_are_compared_with(problem):
    """At 8 times the steps errors are 8^order times smaller, of 4,000 paths, within a fifth."""
    named = {row.solver.partition("(")[0]: row for row in sg.which_solver(problem.sde).rows}
    fitting = {
        name
        for name, row in named.items()
        if row.evaluations and getattr(row.orders, problem.declared)
    }
    solvers = solver_costs.solvers_of(problem)
    assert {name.partition(",")[0] for name in solvers} == fitting
    with torch.no_grad():
        few, many = (solver_costs.batch(problem, n, 4_000, seed=n) for n in (8, 64))
    for name, solver in solvers.items():
        _, strong = getattr(solver.orders, problem.declared)
        fallen = math.log(float(few[name][0].mean() / many[name][0].mean()) ** 0.5) / math.log(8)
        assert fallen > strong - 0.2, name
    # of Euler, of order ½ in two problems, it is not more
    assert float(many["EulerMaruyama"][0].mean()) ** 0.5 > 1e-3


def test_orders_that_are_read_off_are_those_of_the_errors():
    """Errors 3/N^p with standard errors of 1 %; what is lost in its noise is left out."""
    rows = [
        {
            "problem": solver_costs.ANY, "solver": "DRI1", "steps": n, "strong error": 3 / n**0.5,
            "± strong": 0.03 / n**0.5, "weak error": 3 / n**2 if n < 40 else 1.0,
            "± weak": 0.03 / n**2 if n < 40 else 1.0,
        }
        for n in (4, 8, 16, 32, 64)
    ]  # fmt: skip
    (row,) = solver_costs.orders(rows)
    assert row["strong order"] == pytest.approx(0.5)
    assert row["weak order"] == pytest.approx(2.0)
    # of three points a factor of two apart, each known to 1 %: 0.01/(√2 log 2)
    assert row["± of strong"] == pytest.approx(0.01 / (2**0.5 * math.log(2)))
    assert row["strong agrees"] == row["weak agrees"] == "yes"
    assert [solver_costs._agrees(p, 0.01, 1.0) for p in (0.8, 1.1, 1.3, None)] == [
        "no",
        "yes",
        "more",
        "not told",
    ]


def test_seconds_of_a_process_are_those_it_spends(monkeypatch):
    """A process computes for 0.2 s and sleeps for 0.1 s; nothing is above itself."""
    busy = "import time\nwhile time.process_time() < 0.2: pass\ntime.sleep(0.1)"
    monkeypatch.setattr(
        imports, "PROCESSES", {"idle": (["-c", ""], None), "busy": (["-c", busy], "busy")}
    )
    idle, row = imports.costs(2)
    assert row["CPU s"] >= 0.2
    assert row["wall s"] >= 0.3
    assert 0 < idle["CPU s"] < row["CPU s"]
    assert row["CPU s above it"] == row["wall s above it"] == 0
    assert idle["CPU s above it"] is None
    with pytest.raises(AssertionError, match="no such"):
        imports.seconds(["-c", "raise SystemExit('no such')"])


@pytest.mark.slow
def test_planted_faults_are_caught_and_named(monkeypatch):
    monkeypatch.setattr(certificates, "CLEAN", {})
    tables = certificates.main(quick=True)
    rows = tables["certificates of planted faults"]
    assert len(rows) == 8
    assert all(row["caught"] == row["named"] == row["runs"] == 1 for row in rows)


def test_faults_that_are_half_more_than_possible_are_seen_and_right_runs_pass():
    rows = verdicts.least_fault(20_000, 1)
    assert [row["off by a factor"] for row in rows] == ["nothing"] + ["drift"] * 3 + ["noise"] * 3
    assert rows[0]["seen"] == 0  # in all but 1e-3
    shares = [row["share of the rate"] for row in verdicts.speed(200_000, 1)]
    assert min(shares) > 0


def test_laws_at_rest_of_the_steps_are_those_in_closed_form():
    """x' = (1 − h) x + √h z has the variance 1/(2 − h); drift −1 at a wall the mean ½ + h/2."""
    x, masses = step_bias.at_rest(0.1, lambda x: -x, 1.0, -7.0, 7.0)
    assert float(masses @ x**2) == pytest.approx(1 / 1.9, rel=1e-10)
    x, masses = step_bias.at_rest(0.1, lambda x: -np.ones_like(x), 1.0, 0.0, 12.0, wall=True)
    assert float(masses @ x) == pytest.approx(0.55, abs=2e-6)


@pytest.mark.slow
def test_biases_of_steps_run_in_a_rehearsal():
    (rows,) = step_bias.main(quick=True).values()
    assert all(row["seeds"] == 2 and row["trajectories"] == 100 for row in rows)
    assert sum(row["inside"] for row in rows) >= len(rows)


def test_held_out_divergences_are_those_of_the_densities():
    """KL of an exact score is 0, and of another density what the two densities say."""
    mixture, points = held_out.moons(), held_out.moons().sample(60, rng=0, dtype=torch.float64)
    other = held_out.eight_gaussians()
    for law, tolerance in ((mixture, 2e-3), (other, 2e-2)):
        found, _ = held_out.divergence(mixture, law.noised(held_out.SDE).score, points)
        expected = float((mixture.log_prob(points) - law.log_prob(points)).mean())
        assert found == pytest.approx(expected, abs=tolerance, rel=tolerance)


def test_all_models_are_judged_on_one_data_set():
    """On fewer points the law itself is at its floor, and a Gaussian where algebra has it."""
    law = held_out.moons()
    p = one_data_set_all_models.Problem(
        "moons", law.sample(2000, rng=1), law.sample(500, rng=2), 1
    )
    row = one_data_set_all_models.gaussian(p)
    alone = sg.Gaussian(p.train.double().mean(0), p.train.double().T.cov())
    exact = float(alone.log_prob(p.unseen).mean())
    assert row["log p of unseen data, nats"] == pytest.approx(exact)
    assert row["sliced W2"] > 2 * row["of training data"]
    # units of the data: u = x/2 is as dense as 2 x is wide
    half = one_data_set_all_models.Problem("half", p.train / 2, p.unseen / 2, 1, spread=2.0)
    assert one_data_set_all_models.gaussian(half)["log p of unseen data, nats"] == pytest.approx(
        exact, abs=1e-4
    )


@pytest.mark.parametrize("without", update_parts.WITHOUT)
def test_the_update_without_a_part_carries_what_it_should(without):
    """∂x_100/∂x_0 is I without drift, 0 without X_t but for (dt ∂f)^100, and near I with both."""
    chain = update_parts.Chain(without)
    carried = update_parts.carried(chain)
    if without == "drift off":
        assert carried == pytest.approx(1.0, abs=1e-9)
    elif without == "X_t off":
        assert carried < 1e-100
    else:
        assert 0.3 < carried < 3
    x = torch.zeros(3, 2)
    ends = [chain(x, update_parts._normal(seed)).detach() for seed in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2]) == (without == "noise off")
    if without == "drift off":  # N(0, I), as g = 1 at first
        many = chain(torch.zeros(4000, 2), update_parts._normal(2)).detach()
        assert float(many.var()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.slow
def test_all_models_run_in_a_rehearsal():
    tables = one_data_set_all_models.main(quick=True)
    assert len(tables["moons"]) == 15
    assert [row["part taken out"] for row in tables.popitem()[1]] == list(update_parts.WITHOUT)


def test_the_pages_are_made_from_the_results():
    pages = table.pages()
    assert {path.name for path in pages} == {"README.md"} | {f"{name}.md" for name in names()}
    assert set(table.ARCHIVE.iterdir()) | {BENCHMARKS / "README.md"} == set(pages)
    for path, text in pages.items():
        assert path.read_text() == text


def test_the_first_page_is_short_and_has_every_benchmark():
    page = (BENCHMARKS / "README.md").read_text()
    assert len(page.splitlines()) <= 150
    run = re.findall(r"-m benchmarks\.(\w+)", (BENCHMARKS.parent / "Makefile").read_text())
    assert run[-1] == "table"
    # the zoo writes two: faults, and with --clean right runs
    assert set(run[:-1]) | {"zoo_clean"} == set(names())
    for name in names():
        assert f"| [{name}](archive/{name}.md) | " in page


def test_links_of_the_pages_lead_somewhere():
    for path, text in table.pages().items():
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            assert (path.parent / link).exists(), link


def test_the_archive_has_every_figure():
    """Each row of each result, with the digits that are shown."""
    for name in names():
        text = (table.ARCHIVE / f"{name}.md").read_text()
        for rows in load(name)["tables"].values():
            for row in rows:
                values = [table.shown(value) for value in row.values() if value is not None]
                assert any(
                    line.startswith("| ") and all(f" {value} " in line for value in values)
                    for line in text.splitlines()
                )


def test_the_first_page_marks_losses():
    assert lookup.ratio(1.05) == "**1.05**"
    assert lookup.ratio(0.95) == "0.95"
    assert lookup.ratio(0.95, win="above") == "**0.95**"
    assert lookup.behind(1.5) == "1.5"
    with pytest.raises(AssertionError, match="no loss any more"):
        lookup.behind(0.5)


@pytest.mark.slow
def test_estimated_errors_of_random_problems_at_rest_cover_the_true_ones():
    rows = [
        row
        for k in range(0, 40, 2)
        for row in random_problems.judged(random_problems.on_a_line(k))
    ]
    assert len(rows) == 60  # none is refused
    assert all(random_problems.covered(row) for row in rows)
    told = random_problems.told_of(rows, "all", "")
    assert told["median of estimate/true"] < 3
    assert told["above 1 % without a word"] == 0


@pytest.mark.parametrize("number", [315, 327])  # a force whose rounding grows, a layer at a wall
def test_what_a_strong_force_does_in_time_is_neither_refused_nor_wrong(number):
    rows = random_problems.judged(random_problems.on_a_line(number))
    assert all(random_problems.covered(row) and row["true"] < 1e-3 for row in rows)


@pytest.mark.slow
def test_random_problems_are_the_same_every_time():
    first, again = random_problems.on_a_line(7), random_problems.on_a_line(7)
    assert (first.cells, first.peclet, first.barrier) == (again.cells, again.peclet, again.barrier)
    every = list(random_problems.problems())
    assert len(every) == 510
    assert sum(problem.where == "plane" for problem in every) == 170
    assert {problem.question for problem in every} == {"rest", "time"}
