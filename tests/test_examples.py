"""The examples run as they are, or with fewer samples, and what they print is right.

Their sizes are constants in capitals; examples/quick.toml has what is put in their place. A line
"m ± e, exact x" may be off by 5 e: once in 10⁶ lines, and seeds are fixed. Headers show what is
printed.
"""

import functools
import re

import pytest
from example_files import (
    COST,
    NAMES,
    NUMBER,
    ROOT,
    SHORT,
    TABLES,
    costs,
    header,
    is_long,
    page,
    quick,
    shape,
    source,
)


@pytest.fixture
def run(programs, tmp_path):
    """Runs an example by itself, in a folder of its own; what it prints."""
    return functools.partial(printed_by, programs, tmp_path)


def printed_by(programs, folder, name):
    """What an example in its quick form prints, run in a folder, with warnings as errors.

    It leaves one picture there, of its own name.
    """
    copy = folder / f"{name}.py"
    copy.write_text(quick(name), encoding="utf-8")
    found = programs.run(file=copy, folder=folder, strict=True)
    assert shape(found) == shape(header(name)), "the header shows something else"
    assert [path.name for path in folder.glob("*.png")] == [f"{name}.png"]
    assert (folder / f"{name}.png").stat().st_size > 10_000
    return found


def numbers(text, pattern):
    """The numbers in each line that matches, as tuples of floats."""
    found = re.findall(pattern.replace("#", f"({NUMBER})"), text)
    assert found, f"nothing printed matches {pattern}"
    return [tuple(map(float, (row,) if isinstance(row, str) else row)) for row in found]


def within(text, *, standard_errors=5):
    """Checks every "m ± e, exact x", and counts them."""
    rows = numbers(text, r"# ± #, exact #")
    for mean, error, exact in rows:
        assert abs(mean - exact) < standard_errors * error
    return len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_is_short_and_has_a_page_and_a_test(name):
    """A page begins with a title, and says what is printed and what the whole form costs."""
    assert len(source(name).splitlines()) <= 60
    assert f"test_{name}" in globals()
    title, line, empty, *_ = page(name).splitlines()
    assert line == "=" * len(title)
    assert not empty
    assert header(name)
    assert abs(int(COST.search(page(name))[1]) - costs()["cpu_seconds"][name]) < 0.6


def test_the_quick_forms_are_of_examples_and_the_long_ones_are_marked():
    """As the last whole run found them; docs/conf.py reads the marks."""
    assert set(TABLES) <= set(NAMES)
    assert all(set(table) <= {"long", "quick"} for table in TABLES.values())
    known = costs()["cpu_seconds"]
    assert sorted(known) == NAMES
    assert [name for name in NAMES if known[name] > SHORT] == [n for n in NAMES if is_long(n)]
    pictures = sorted(path.stem for path in (ROOT / "docs/pictures/examples").glob("*.png"))
    assert pictures == [name for name in NAMES if is_long(name)]


def test_active_particles(run):
    printed = run("active_particles")
    assert within(printed) == 6
    # of 22 displacements of 400 trajectories, whose squares are not normal yet
    assert all(worst < 6 for (worst,) in numbers(printed, r"largest deviation # standard"))


def test_verdict(run):
    printed = run("verdict")
    right, wrong = numbers(printed, r"variance of the noise / believed #")
    # 5 standard errors of 50,000 numbers
    assert abs(right[0] - 1) < 0.032
    assert abs(wrong[0] - 0.5) < 0.016
    assert "right: passed is True" in printed
    assert "a factor is missing: passed is False" in printed
    assert "named: noise variance half" in printed
    # 24 parts exceed 5 once in 70,000
    assert all(worst < 5 for (worst,) in numbers(printed, r"off by at most # standard"))


def test_double_well(run):
    # 5 standard errors of a share; a distance in 200 cells scatters by 6 %
    printed = run("double_well")
    for crossed, expected, distance, floor in numbers(
        printed, r"crossed #, by the density #; total variation #, floor #"
    ):
        assert abs(crossed - expected) < 5 * (expected * (1 - expected) / 2e4) ** 0.5
        assert distance <= 1.3 * floor
    ((gap,),) = numbers(printed, r"Boltzmann's: #")
    assert gap < 1e-10


def test_rotating_drift(run):
    printed = run("rotating_drift")
    still, turning = numbers(printed, r"σ = # ± #, grid #")
    assert still[0] < 0.05
    assert still[2] < 1e-6
    rate, error, grid = turning  # a fifth of the training: 5 standard errors and a tenth
    assert abs(rate - grid) < 5 * error + 0.1 * grid
    for largest, right, apart in numbers(printed, r"current #, grid #, apart by #"):
        assert abs(largest - right) <= apart < 0.03


def test_double_well_noising(run):
    # of few steps; the header has the numbers of all of them
    printed = run("double_well_noising")
    for _, error in numbers(printed, r"t = #: relative error of the score # %"):
        assert error < 40
    for (distance,) in numbers(printed, r"W1 to the data #"):
        assert distance < 0.3


def test_critically_damped(run):
    # of few steps; what is at rest is 0.9 away, and the header has the numbers of all steps
    printed = run("critically_damped")
    for distance, floor in numbers(printed, r"to other data #; of data themselves #"):
        assert distance < 0.3
        assert floor < 0.15


def test_heat_equation(run):
    # of few steps; the header has the numbers of all of them
    printed = run("heat_equation")
    rows = numbers(printed, r"energy distance to other digits #, sliced W2 #")
    for made, floor, rest in zip(*rows, strict=True):
        assert floor < made < rest


def test_phi4(run):
    # few fields, and few steps of training, which generate nothing yet; the header has all of it
    printed = run("phi4")
    rows = numbers(printed, r"simulated # ± #, generated # ± #")
    # of 37,500 fields with half the step: 5 standard errors of both
    for (found, error, _, _), known, of_known in zip(
        rows, (0.4232, 10.04, 55.9, 0.4882), (1e-3, 0.06, 0.2, 1.4e-3), strict=True
    ):
        assert abs(found - known) < 5 * (error**2 + of_known**2) ** 0.5


def test_neural_sde(run):
    # of few steps; a drift of 0 is off by 100 %, and the header has the numbers of all steps
    printed = run("neural_sde")
    whole, runs = (held for (held,) in numbers(printed, r"differentiable=.*: # MB"))
    assert whole > 20
    assert runs < 0.2
    ((noise, right, off),) = numbers(printed, r"noise # for #; drift off by # %")
    assert abs(noise - right) < 0.4
    assert off < 80


def test_vae_digits(run):
    # the Gaussian is that of the header; few steps have not beaten it
    printed = run("vae_digits")
    assert numbers(printed, r"log p = # nats") == [(4.8,)]
    for latents, elbo, tight, kl in numbers(printed, r"# latents: .* ≥ #, .* weights #; .* #"):
        assert latents in (2, 8)
        assert -200 < elbo < tight < 4.8
        assert kl > 0


def test_own_drift(run):
    assert within(run("own_drift")) == 5


def test_train_and_compare_samplers(run):
    printed = run("train_and_compare_samplers")
    rows = numbers(printed, r"nfe = +#, SW2 = #")
    assert [nfe for nfe, _ in rows[:4]] == [200, 150, 25, 50]
    floor = rows[-1][1]
    assert all(distance < 4 * floor for _, distance in rows)


def test_ddpm_is_discretised_vp(run):
    printed = run("ddpm_is_discretised_vp")
    assert numbers(printed, r"α\(t_k\)² to #")[0][0] < 1e-12
    for (order,) in numbers(printed, r"beta *: .*, order #"):
        assert order == pytest.approx(-1, abs=0.1)
    for (order,) in numbers(printed, r"posterior *: .*, order #"):
        assert -1 < order < -0.75


def test_likelihood(run):
    printed = run("likelihood")
    ((mean, largest, _),) = numbers(printed, r"dopri8, tolerance 1e-9 +# +# +#")
    assert abs(mean) <= largest < 1e-8
    ((_, prior),) = numbers(printed, r"t_max +# +#")
    ((_, cut),) = numbers(printed, r"t_min for 0 +# +#")
    assert 1e-4 < prior < 0.1
    assert 1e-4 < cut < 0.1
    for spread, reported in numbers(printed, r"spread #, standard error as reported #"):
        assert spread == pytest.approx(reported, rel=0.25)


def test_soft_discs(run):
    printed = run("soft_discs")
    ((pressure, _),) = numbers(printed, r"P = # ± #")
    ((r, g, _),) = numbers(printed, r"r = #: # ± #")
    assert 2.7 < pressure < 3.2
    assert 0.9 < r < 1.1
    assert 1.6 < g < 2.2


def test_nonequilibrium(run):
    printed = run("nonequilibrium")
    assert within(printed) == 8
    assert [exact for _, _, exact in numbers(printed, r"production +# ± #, exact #")] == [0, 8]


def test_foreign_network(run):
    printed = run("foreign_network")
    rows = numbers(printed, r"DDIMPipeline #, our DDIM to #, third order #")
    assert len(rows) == 2
    for theirs, apart, third in rows:
        assert apart < 1e-4  # its tables are of single precision
        assert third < 3 * theirs


def test_overview(run):
    printed = run("overview")
    ((reverse, flow),) = numbers(printed, r"reverse SDE #, probability flow #")
    # 20,000 samples each: 0.7 to four standard errors
    assert reverse == pytest.approx(0.7, abs=0.013)
    assert flow == pytest.approx(0.7, abs=0.013)


def test_kramers_turnover(run):
    printed = run("kramers_turnover")
    rows = numbers(printed, r"γ = #: kinetic #, simulated # ± #")
    for (friction, exact, mean, error), oracle in zip(
        rows, (5.15639e-3, 4.84444e-3, 2.297092e-3), strict=True
    ):
        assert exact == pytest.approx(oracle, rel=1e-3), friction
        assert abs(mean - exact) < 5 * error, friction


def test_kramers_escape(run):
    printed = run("kramers_escape")
    assert within(printed) == 1
    rows = numbers(printed, r"ΔU = +# kT: rate #, half the gap #, Kramers #, off by +# %")
    for height, rate, gap, kramers, off in rows:
        assert off == pytest.approx(100 * (kramers / rate - 1), abs=0.02)
        # those that come back at once, and Laplace's method: both of order 1/ΔU
        assert height < 4 or abs(gap / rate - 1) < 0.2 / height
        assert height < 4 or 0 < off < 70 / height


def test_tilted_washboard(run):
    printed = run("tilted_washboard")
    assert within(printed) == 8
    assert all(off < 1e-8 for (off,) in numbers(printed, r"solver #"))


def test_jarzynski_crooks(run):
    printed = run("jarzynski_crooks")
    assert within(printed) == 7
    assert all(found < 2.47 for (found,) in numbers(printed, r"KS # < 2.47"))


def test_fit_potential(run):
    printed = run("fit_potential")
    assert within(printed) == 4
    assert numbers(printed, r"differ by at most #")[0][0] < 1e-3


def test_ito_or_stratonovich(run):
    printed = run("ito_or_stratonovich")
    # 200 steps: a weak error of 1e-3 at most beside the standard error
    for mean, error, exact in numbers(printed, r"mean # ± #, exact #"):
        assert abs(mean - exact) < 5 * error
    rows = numbers(printed, r"moments #, #, TV #")
    assert len(rows) == 3
    assert max(max(row) for row in rows) < 1e-5


def test_matrix_noise_readings(run):
    # weak order 2: at 40 steps a tenth of a standard error
    assert within(run("matrix_noise_readings")) == 8


def test_boltzmann_digits(run):
    printed = run("boltzmann_digits")
    assert numbers(printed, r"largest weight #")[0][0] > 1
    ours, pixels = numbers(printed, r"digits: # nats, by pixels that know of no other #")[0]
    assert pixels == -25.07
    assert ours > -23
    assert within(printed) == 1
    assert numbers(printed, r"cover it in # of #") == [(5, 5)]


def test_chemical_langevin(run):
    # the Langevin equation itself is off by a hundredth; 5 standard errors beside it
    printed = run("chemical_langevin")
    rows = numbers(printed, r"Langevin # ± #, master equation #")
    assert len(rows) == 3
    for found, error, exact in rows:
        assert abs(found - exact) < 5 * error + 0.015
    assert rows[0][2] > 0.9 > rows[1][2] > 0.7 > rows[2][2]


def test_energy_ring(run):
    printed = run("energy_ring")
    # few steps of few samples are some way off
    distance, steps, lost = numbers(printed, r"truth: #, after # steps, # chains lost")[0]
    assert distance < 0.45
    assert (steps, lost) == (300, 0)
    assert within(printed) == 1


def test_error_budget(run):
    printed = run("error_budget")
    ((early, prior, score, accuracy),) = numbers(
        printed, r"early stopping #, prior mismatch #, score error #, accuracy #"
    )
    assert accuracy < 0.01 * early
    for _, steps, whole in numbers(printed, r"N = +#: time discretisation #, whole #"):
        assert whole <= early + prior + score + steps + 0.1 * whole  # printed with two digits


def test_kramers_ensemble(run):
    # Heun's own error at dt = 0.04 is below one standard error of 100,000 trajectories
    printed = run("kramers_ensemble")
    assert within(printed) == 3
    ((kramers,),) = numbers(printed, r"formula: +#")
    assert kramers > 0.0175  # above the exact rate, by 17 %


def test_average_to_tolerance(run):
    # half widths of 95 %: 2 of them are 4 standard errors beside the bias
    printed = run("average_to_tolerance")
    assert within(printed, standard_errors=2) == 4
    for cost, alone in numbers(printed, r"; # evaluations, Euler alone #"):
        assert cost < alone
    ((slope, order),) = numbers(printed, r"tolerance\^#; variance .* dt\^#")
    assert slope == pytest.approx(-2, abs=0.3)  # pilots count at wide tolerances
    assert order == pytest.approx(2, abs=0.2)


def test_gaussian_reverse(run):
    printed = run("gaussian_reverse")
    powers = [power for *_, power in numbers(printed, r"KL # at dt = #, # at #, as dt\^#")]
    linear, well, _, changed = powers  # of these steps multiplicative noise is far from its limit
    assert min(linear, well, changed) > 2.4
    ((_, larger, smaller),) = numbers(printed, r"VP at dt = #: KL .* beta #, with beta tilde #")
    assert larger < smaller < 0.1
    ((relaxation, time),) = numbers(
        printed, r"well is #; from x = -1, KL to rest is 0.01 at t = #"
    )
    assert relaxation == pytest.approx(5.49, abs=0.01)
    assert time == pytest.approx(11.4, abs=0.1)


def test_inverse_problem(run):
    printed = run("inverse_problem")
    (weights,) = numbers(printed, r"weights #, #, #")
    rows = dict(re.findall(r"(\w+) +SW2 = ([\d.]+)", printed))
    distance = {name: float(value) for name, value in rows.items()}
    assert distance["exact"] < 1.5 * distance["floor"]
    assert distance["exact"] < distance["tweedie"] < distance["isotropic"] < distance["none"]
    ((share,),) = numbers(printed, r"exact .* state #")
    # 4,000 samples, and some are nearer to another mean
    assert share == pytest.approx(weights[1], abs=0.05)


def test_train_on_files(run):
    """Rows and steps are counted, and a run that has ended is not done again."""
    printed = run("train_on_files")
    assert numbers(printed, "# MB on disk, # rows in # steps") == [(0.3, 15360, 30)]
    ((count, first, last),) = numbers(printed, "# lines of metrics, loss # at first and # at")
    assert count == 3
    assert last < first < 1.1  # that of no network is 1
    assert "0 steps to take, the same losses: True" in printed


def test_two_decompositions(run):
    printed = run("two_decompositions")
    row = r"x # +# +# ± # +# +# ± # +# +# ± # +# +#"
    for factor, levels, *ways, other in numbers(printed, row):
        means, errors, variances = ways[::3], ways[1::3], ways[2::3]
        # three comparisons of means: 10⁻⁵ each; at T = 20 the variances are far apart
        for mean, error in zip(means, errors, strict=True):
            assert abs(mean - means[2]) < 4.5 * (error**2 + errors[2] ** 2) ** 0.5 + 0.001
        if levels >= 20:
            assert other < -40
            assert variances[0] < 0.6 * variances[2] < 0.3 * variances[1]
        if factor == 1:
            assert variances[0] == 0


def test_learned_schedule(run):
    printed = run("learned_schedule")
    row = r"# ± # +var +# +# ± # +var +# +30 steps +#"
    learned, level, cosine, linear = numbers(printed, row)
    for other in (level, cosine, linear):
        # six comparisons of means, 10⁻⁵ each; in 30 steps the learned clock is the tightest
        for i in (0, 3):
            error = (learned[i + 1] ** 2 + other[i + 1] ** 2) ** 0.5
            assert abs(learned[i] - other[i]) < 4.5 * error
        assert learned[6] > other[6]
    # of 200 draws a variance scatters by 10 %, and by more where its tails are heavy
    assert min(cosine[2], linear[2]) > 10 * learned[2]
    assert min(cosine[5], linear[5]) > 5 * learned[5]
    assert level[2] > 2 * learned[2]


def test_three_routes(run):
    printed = run("three_routes")
    ((exact, floor),) = numbers(printed, "exact log p # nats, SW2 of fresh data #")
    assert floor < 0.25  # of 500 points
    rows = numbers(printed, "log p ≥ #, # below, SW2 #, # s")
    assert len(rows) == 3
    for bound, below, off, _ in rows:
        assert below == pytest.approx(exact - bound, abs=0.002)
        assert 0 < below < 1.5  # a bound is below: 0.02 is the scatter of 500 differences
        assert off < 0.6


# Short ones are run whole by `make docs`, which holds their numbers against their headers; of
# those it shows without a run, each has its quick form in `make test`.
for _name in NAMES:
    if not is_long(_name):
        globals()[f"test_{_name}"] = pytest.mark.slow(globals()[f"test_{_name}"])
