"""Free energies from work out of equilibrium: Jarzynski and Crooks
================================================================

A trap is dragged so fast that 2 T and more is dissipated: W is Gaussian (KS, √n times their
distance, alarms above 2.47), and the mean of exp(−W/T) is 1. Then one is made four times as stiff
and softened again: the laws of W and −W cross at ΔF = ln(4)/2. It prints, in 17 s of one core::

    overdamped: <W> 2.0019 ± 0.0020, exact 1.9992; ΔF -0.0105 ± 0.0104, exact 0; KS 1.38 < 2.47
    phase space: <W> 2.7816 ± 0.0024, exact 2.7835; ΔF 0.0023 ± 0.0164, exact 0; KS 0.93 < 2.47
    stiffened: by Jarzynski 0.6924 ± 0.0004, exact 0.6931; by Bennett 0.6926 ± 0.0003, exact 0.6931
        slope of log P(W)/P(-W) 0.9995 ± 0.0034, exact 1
"""

import math

import torch

import sdegen as sg

TRAJECTORIES = 1_000_000
END, V = 2.0, 1.327
ax, rows = sg.plots.style.panels("LE", 10.0, 3.8)[1], {}


def work(potential, solver, seed, stiffness=1.0, kind=sg.Langevin):
    sde, draw = kind(sg.DrivenPotential(potential)), torch.Generator().manual_seed(seed)
    x = torch.randn(TRAJECTORIES, 1, generator=draw).double() / stiffness**0.5
    x = sde.state(x, sde.draw_velocities(x, rng=seed)) if sde.phase_space else x
    path = sg.simulate(sde, x, [0.0, END], solver=solver, rng=seed, functionals=[sg.Work()])
    return path.functionals["work"][-1]


trap = lambda t: sg.Quadratic(1.0, center=V * float(t))  # noqa: E731
lag = torch.tensor([[0, 1, 0, 0], [-1, -1, -V, 0], [0, 0, 0, 0], [-V, 0, 0, 0]]).double()
mean = (lag * END).matrix_exp()[3] @ lag.new([0, -V, 1, 0])  # of W, as the mean lags behind
for name, W, exact in (
    ("overdamped", work(trap, sg.Heun(40), 1), V**2 * (END - 1 + math.exp(-END))),
    ("phase space", work(trap, sg.BAOAB(40), 2, kind=sg.UnderdampedLangevin), mean),
):
    n, one = len(W), sg.jarzynski(W, temperature=1.0)
    below = torch.special.ndtr((W.sort().values - exact) / math.sqrt(2 * exact))
    d = (below * n - torch.arange(n) - 0.5).abs().max() / math.sqrt(n)
    print(f"{name}: <W> {W.mean():.4f} ± {W.std() / n**0.5:.4f}, exact {exact:.4f}", end="; ")
    print(f"ΔF {one.difference:.4f} ± {one.error:.4f}, exact 0; KS {d:.2f} < 2.47")
    rows[f"⟨W⟩, {name}"] = (W.mean(), W.std() / n**0.5, exact)
W = work(lambda t: sg.Quadratic(1 + 3 * float(t) / END), sg.Heun(160), 3)
R = work(lambda t: sg.Quadratic(4 - 3 * float(t) / END), sg.Heun(160), 4, stiffness=4.0)
one, both, dF = sg.jarzynski(W, 1.0), sg.crooks(W, R, 1.0), math.log(4) / 2
print(f"stiffened: by Jarzynski {one.difference:.4f} ± {one.error:.4f}, exact {dF:.4f}", end="; ")
print(f"by Bennett {both.difference:.4f} ± {both.error:.4f}, exact {dF:.4f}")
print(f"    slope of log P(W)/P(-W) {both.slope:.4f} ± {both.slope_error:.4f}, exact 1")
rows["ΔF, stiffened, by Jarzynski"] = (one.difference, one.error, dF)
rows["ΔF, stiffened, by Bennett"] = (both.difference, both.error, dF)
rows["slope of log P(W)/P(−W)"] = (both.slope, both.slope_error, 1)
for values, label in ((W, "W, stiffened"), (-R, "−W, softened again")):
    ax["L"].hist(values, 200, range=(0, 4), density=True, histtype="step", label=label)
ax["L"].axvline(dF, color="0.5", ls=":", label=f"ΔF = {dF:.4f}")
ax["L"].set(xlabel="work W, units of T", ylabel="density P(W)")
ax["L"].legend(loc="upper right", frameon=False, fontsize=8.5)
sg.plots.estimates(rows, panel=ax["E"]).savefig("jarzynski_crooks.png")
