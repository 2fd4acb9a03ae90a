"""Narrative of the demonstration: what each act found, in words, tables, claims and pictures.

Written for somebody who was not there and does not know the library: first what was done, then
what was required and measured, then what is to be seen. What is required is written here, beside
the claim that it decides; the acts only measure.
"""

import math
from dataclasses import astuple

from torch import Tensor

from sdegen import plots
from sdegen.app.demo.ddpm import FIT_FROM, Comparison
from sdegen.app.demo.digits import Generation, mean_and_error
from sdegen.app.demo.physics import Relaxation
from sdegen.app.demo.record import Record
from sdegen.app.demo.routes import DDPM_VARIANCE
from sdegen.app.report import Cell, Claim, Measured
from sdegen.plots.ticks import scientific


def narrate_physics(record: Record, act: Relaxation) -> None:
    """Narrate act 1: particles and their density."""
    n, pairs = act.path.states.shape[1], act.agreements
    report = record.report
    report.section("Act 1. Physics: a drift of one's own, as particles and as a density")
    report.equation("dX = (X − X³) dt + 0.7 dW        X at t = 0: normal, mean −1, deviation 0.2")
    report.text(
        f"""A particle in a double well, energy U(x) = x⁴/4 − x²/2, at temperature D = 0.7²/2 =
        0.245. The drift was given as a plain Python function. From the same object two things were
        made that know nothing of each other: {n:,} random trajectories (Euler–Maruyama, Δt =
        {act.step:g}, {act.simulation_seconds:.1f} s), and the solution of the Fokker–Planck
        equation ∂p/∂t = −∂(f p)/∂x + D ∂²p/∂x² on {len(act.density.x) - 1} cells
        ({act.density_seconds:.2f} s). All start in the left well; noise carries them over the
        barrier.

        What a floor is: the distance that a perfect answer shows, since what it is measured with
        is not perfect. Here even exact samples, {n:,} of them counted into cells, differ from
        their own density: they show a total variation (half the summed difference of counts and
        probabilities) that is known in closed form, the sampling floor, and which scatters from
        one set of exact samples to the next by the ± beside it. Particles and density agree where
        the measured distance is as large as that, but for its scatter. To show that the comparison
        can fail, the density was also solved with a mistake in it, D = g² for g²/2: the last
        column."""
    )
    record.table(
        "double_well",
        "time | total variation | sampling floor | ratio | with the mistake",
        [
            (
                a.time,
                a.total_variation,
                Measured(a.floor, a.spread),
                Measured(a.ratio, a.spread / a.floor),
                Measured(a.mistaken / a.floor, a.spread / a.floor),
            )
            for a in pairs
        ],
        f"{n:,} particles against the Fokker–Planck density; the last two columns in floors, ± "
        "is the standard deviation of as many exact samples",
    )
    times = ", ".join(f"{a.time:g}" for a in pairs)
    right = "double well: particles against their density, total variation in floors, the largest"
    wrong = "double well: the same against a density with a planted factor of two, the smallest"
    still = "double well: stationary density against Boltzmann's at the same nodes, L1 distance"
    claims = (
        Claim(f"{right} at t = {times}", max(a.ratio for a in pairs), high=1.3),
        Claim(wrong, min(a.mistaken / a.floor for a in pairs), low=3.0),
        Claim(still, act.boltzmann_error, high=1e-10),
    )
    record.claims(*claims)
    report.take_away(
        f"""One function of x gave {n:,} trajectories and a density, and they are the same law: no
        further apart than exact samples of it ({max(a.ratio for a in pairs):.2f} floors at most),
        while a lost factor of two stands {min(a.mistaken / a.floor for a in pairs):.0f} floors
        away or more.""",
        holds=all(claim.holds for claim in claims),
    )
    _picture_wells(record, act)


def _picture_wells(record: Record, act: Relaxation) -> None:
    """Show particles and density in time, and the density at rest."""
    n = act.path.states.shape[1]
    record.figure(
        "double_well",
        plots.density_and_particles(
            act.density, act.path, times=[0.0, *(a.time for a in act.agreements)]
        ),
        f"Above: the Fokker–Planck density over time. Below: histograms of the {n:,} particles, "
        "and the density at the same times.",
    )
    film = "relaxation"
    plots.relaxation_gif(act.density, act.path, record.folder / f"{film}.gif")
    record.film(film, "The particles relax under their density (animated).")
    record.report.text(
        """The state that all this tends to was not waited for. It was solved for directly, from
        drift and noise alone, and lies on Boltzmann's density, which the solver was never told."""
    )
    record.figure(
        "stationary",
        plots.stationary(act.stationary, act.boltzmann, energy=act.energy),
        "The energy, the stationary density on Boltzmann's, and their difference: rounding "
        "errors.",
    )


def narrate_digits(record: Record, act: Generation) -> None:
    """Narrate act 2: generation from real data."""
    data, report = act.data, record.report
    known, test = len(data.train), len(data.test)
    report.section("Act 2. Generation: handwritten digits out of noise, by every route")
    report.equation(
        """
noising       dX = −½ β(t) X dt + √β(t) dW                    t: 0 → 1
reverse SDE   dX = [−½ β X − β ∇log pₜ(X)] dt + √β dW         t: 1 → 0
flow          dX = [−½ β X − ½ β ∇log pₜ(X)] dt               t: 1 → 0
"""
    )
    report.text(
        f"""{known + len(data.validation) + test:,} scans of handwritten digits (scikit-learn's, 8
        × 8 pixels). Half of them, {known + len(data.validation)}, were for learning, of which
        {len(data.validation)} decided when training stops and which route is taken. The other
        half, {test} images, was only looked at to judge. A small MLP ({act.parameters:,}
        numbers) learned the score of the noised digits, ∇log pₜ, which says where from a noisy
        image the digits are, in {act.training_seconds:.0f} s; kept are the weights of step
        {act.training.selected_step:,}, the best on the validation images.

        With this one score noise was turned into digits by six routes: DDPM's own chain, whose
        steps have the {DDPM_VARIANCE} variance βₖ σₖ₋₁²/σₖ², the reverse SDE by two libraries,
        and the noise-free probability flow by three methods. How
        good they are is told by two distances between {len(act.samples)} generated digits and as
        many test digits. Neither is zero between real digits: the first row is the distance
        between the two halves of the real data, the floor, which is what a perfect generator would
        show. Other halves of the same digits would be a little nearer or further: the ± of that
        row is the standard deviation over {len(act.halvings)} random halvings."""
    )
    _tabulate_routes(record, act)
    _narrate_route(record, act)
    _picture_digits(record, act, data.test)
    _narrate_likelihood(record, act)


def _tabulate_routes(record: Record, act: Generation) -> None:
    """Tabulate what each route costs and how near its digits come."""
    floor = act.floor_energy
    scatter, sliced_scatter = act.halvings.std(0).tolist()
    halves = (
        Measured(act.floor_sliced_wasserstein, sliced_scatter),
        Measured(floor, scatter),
        Measured(1.0, scatter / floor),
        None,
    )
    rows: list[tuple[Cell, ...]] = [("real digits: the floor", "two halves", None, None, *halves)]
    for run in act.runs:
        cost = (run.route.name, run.route.setting, run.nfe, run.seconds)
        distances = (
            Measured(run.sliced_wasserstein, run.sliced_wasserstein_error),
            Measured(run.energy, run.energy_error),
            Measured(run.energy / floor, run.energy_error / floor),
            Measured(run.validation_energy, run.validation_energy_error),
        )
        rows.append((*cost, *distances))
    record.table(
        "routes",
        "route | setting | evaluations | seconds | sliced W2 | energy distance | in floors "
        "| to validation",
        rows,
        "Evaluations of the score, seconds for a set of samples, distances to the test digits, "
        f"means over {len(act.energies)} seeds ± their standard errors; the last column, the "
        "energy distance to the validation digits, chooses the route",
    )


def _narrate_route(record: Record, act: Generation) -> None:
    """Narrate which route was chosen, and what its digits are worth."""
    chosen, floor = act.chosen.route, act.floor_energy
    near, near_error = mean_and_error(act.nearests)
    record.report.text(
        f"""Nearest to the validation digits was: {chosen.name}, {chosen.setting}. Its energy
        distance to the test digits is, in floors and seed by seed,
        {", ".join(f"{e / floor:.2f}" for e in act.energies)}. A generator that had
        learned its training images by heart would do as well. So the distance of its digits to the
        nearest training image, {near:.3f} ± {near_error:.3f} on average over the seeds, is held
        against that of the test digits, {act.nearest_test:.3f}."""
    )
    record.table(
        "chosen_route",
        "seed | energy distance | in floors | to nearest training image | relative to test digits",
        [
            (k, e, e / floor, d, d / act.nearest_test)
            for k, (e, d) in enumerate(zip(act.energies, act.nearests, strict=True))
        ],
        f"The chosen route, {len(act.samples)} digits for each seed",
    )
    energy = f"digits: energy distance to test digits in floors, mean of {len(act.energies)} seeds"
    nearest = "digits: distance to the nearest training image, relative to that of test digits"
    bits = "digits: bits per pixel saved on test digits, against a Gaussian fitted to the training"
    saved = act.likelihoods.gaussian - act.likelihoods.mean
    saved_bits = f"{saved:.3f}".replace("-", "−")
    claims = (
        Claim(energy, act.energy / floor, high=2.0),
        Claim(nearest, act.nearest / act.nearest_test, low=0.9),
        Claim(f"{bits} digits", saved, low=0.0),
    )
    record.claims(*claims)
    record.report.take_away(
        f"""One learned score is sampled by six routes, and its digits are real ones to within
        {act.energy / floor:.2f} ± {act.chosen.energy_error / floor:.2f} floors in the energy
        distance (1 is perfect), without being the training images; the same score says how
        likely an image is, in {saved_bits} ± {act.likelihoods.saved_error:.3f} bits per
        pixel less than a Gaussian.""",
        holds=all(claim.holds for claim in claims),
    )


def _picture_digits(record: Record, act: Generation, test: Tensor) -> None:
    """Show real and generated digits, how noise becomes one, and what a sample costs."""
    sheets = {"test digits (real)": test, "generated": act.samples}
    record.figure(
        "digits",
        plots.image_sheet(sheets | {"nearest training images": act.models_of}),
        "Real digits, generated digits, and for each generated one, at the same place, the "
        "training image that is nearest to it. Each of the 8 × 8 pixels is a square of one grey.",
        sharp=True,
    )
    record.figure(
        "noise_to_digits",
        plots.denoising_strip(act.strip),
        "Noise becomes digits: a row is one trajectory of the reverse SDE, a column one time.",
        sharp=True,
    )
    # evaluations and distance of each route, with its standard error
    curves: dict[str, list[tuple[float, ...]]] = {}
    for run in act.runs:
        point = (run.nfe, run.energy, run.energy_error)
        curves.setdefault(run.route.name, []).append(point)
    quantity = "energy distance to test digits"
    record.figure(
        "routes",
        plots.pareto(curves, floor=act.floor_energy, quantity=quantity),
        "What a sample costs and what it is worth, route by route; bars are standard errors over "
        f"{len(act.energies)} seeds, the floor is the distance of two halves of the real digits.",
    )


def _narrate_likelihood(record: Record, act: Generation) -> None:
    """Narrate what a test image takes to write down, and how the network was trained."""
    likely = act.likelihoods
    record.report.text(
        f"""The flow also gives the density of an image. On {likely.images} test images it takes
        {likely.mean:.3f} ± {likely.standard_error:.3f} bits per pixel to write them down with this
        model ({likely.nfe} evaluations, {likely.seconds:.0f} s), {likely.gaussian:.3f} ±
        {likely.gaussian_error:.3f} with a Gaussian of the training images' mean and covariance,
        and log₂ 17 = {math.log2(17):.3f} without any model."""
    )
    record.table(
        "likelihood",
        "images | bits per pixel | Gaussian | saved | no model",
        [
            (
                likely.images,
                Measured(likely.mean, likely.standard_error),
                Measured(likely.gaussian, likely.gaussian_error),
                Measured(likely.gaussian - likely.mean, likely.saved_error),
                math.log2(17),
            )
        ],
        "Test likelihood along the probability flow; ± is the standard error over the images, of "
        "what is saved that of the differences, image by image",
    )
    record.figure(
        "training",
        plots.loss_curve(act.training),
        "The loss of each training step, its running mean, and the loss on validation digits.",
    )


def narrate_ddpm(record: Record, act: Comparison) -> None:
    """Narrate act 3: DDPM as a discretised VP-SDE."""
    report = record.report
    report.section("Act 3. DDPM is a discretised SDE, and how far from it")
    report.equation(
        """
DDPM          x ← (x + b² ∇log pₜ(x))/a + s z             a = √(1 − βₖ), b² = βₖ
reverse SDE   x ← x + Δt [½ β x + β ∇log pₜ(x)] + √(β Δt) z
"""
    )
    report.text(
        """A diffusion model of N steps (DDPM) becomes the reverse SDE of act 2 for large N. Here
        the gap is measured for each N. The data are a mixture of two Gaussians on a line, so that
        the score is known exactly; both samplers walk the same grid from the same N(0, 1) down to
        the same last time. Their laws are not estimated from samples: the density after N steps
        follows by quadrature from the steps, which are Gaussian, so that nothing below is random.
        The distance is W1, the area between two distribution functions. So the floor is 0 here,
        and no number has a statistical error.

        In the forward direction there is no gap at all: the products of 1 − βₖ are the squared
        signal of the SDE. Backward the step's noise s matters. DDPM offers two: s² = βₖ, and the
        variance of the posterior, βₖ times σₖ₋₁²/σₖ²."""
    )
    record.table(
        "ddpm_gap",
        "N | gap, variance β | gap, posterior | reverse SDE to exact | DDPM β to exact "
        "| DDPM posterior to exact",
        [astuple(gap) for gap in act.gaps],
        "W1 between DDPM and the reverse SDE (gap), and of each to the exact law of the data at "
        "the last time",
    )
    _claim_slopes(record, act)


def _claim_slopes(record: Record, act: Comparison) -> None:
    """Claim how fast the gap closes, and show it."""
    signal = "DDPM: products of 1 − βₖ against the squared signal of the SDE, relative, largest"
    slope = f"DDPM: slope of the gap from N = {FIT_FROM} on, variance"
    lost = "DDPM: probability that the quadrature lost, largest over all chains"
    claims = (
        Claim(signal, act.forward_error, high=1e-12),
        Claim(f"{slope} β", act.beta_slope, low=-1.05, high=-0.95),
        Claim(f"{slope} of the posterior", act.posterior_slope, low=-0.99, high=-0.87),
        Claim(lost, act.mass_error, high=1e-5),
    )
    record.claims(*claims)
    last = act.gaps[-1]
    record.report.take_away(
        f"""DDPM is the VP-SDE in steps: forward exactly, backward up to about 1/N. At N =
        {last.steps:,} its law is {scientific(last.beta)} from that of the reverse SDE with
        variance β, and {scientific(last.posterior)} with the posterior's: a difference of steps,
        not of models.""",
        holds=all(claim.holds for claim in claims),
    )
    record.report.text(
        f"""With s² = βₖ both steps agree up to Δt² everywhere, and the gap falls as 1/N: a slope
        of −1 ({act.beta_slope:.3f} measured). The posterior's variance is smaller by the factor
        σₖ₋₁²/σₖ², which near the data, where σ² ≈ βt, is about 1 − Δt/t and so not close to 1
        however small βₖ is; summed over the grid this adds a logarithm, (log N)/N, and the slope
        is flatter ({act.posterior_slope:.3f}) until Δt is far below the last time t."""
    )
    curves = {
        "gap, variance β": [(gap.steps, gap.beta) for gap in act.gaps],
        "gap, posterior": [(gap.steps, gap.posterior) for gap in act.gaps],
        "reverse SDE to exact": [(gap.steps, gap.reverse_sde_error) for gap in act.gaps],
    }
    record.figure(
        "ddpm_gap",
        plots.convergence(curves, slope=-1, quantity="W1"),
        "The gap between DDPM and the reverse SDE against the number of steps, beside a line of "
        "slope −1.",
    )
