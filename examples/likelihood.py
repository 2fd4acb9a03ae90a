"""The log-likelihood of points under a score, and where its last digits go.

The score of this mixture is exact, and so is its density at every time: what `log_likelihood`
finds is checked point by point. The flow is right to the solver's tolerance. Taking N(0, I) for
the law at t_max, and the law at t_min for that of the data, are approximations of the model:
their sizes are printed apart. Last, Hutchinson's estimate of the divergence, whose spread over
the points is what its own standard errors say. All in nats. This prints, in 10 s of one CPU core:

    error of log p                  mean      largest   evaluations
    dopri5, tolerance 1e-6        -6.5e-07   2.1e-04    110
    dopri8, tolerance 1e-9         1.6e-11   1.7e-10    418
    Heun, 500 steps                8.1e-06   1.4e-03   1000
    N(0, I) for the law at t_max  -1.2e-04   7.7e-03
    t_min for 0                   -2.7e-05   1.9e-02
    16 gaussian   probes: spread 0.535, standard error as reported 0.537
    16 rademacher probes: spread 0.129, standard error as reported 0.133
"""

import torch

import sdegen as sg

POINTS = 1_000

sde = sg.VP(sg.LinearBeta(0.1, 20.0))
mixture = sg.GaussianMixture([0.3, 0.7], [[-1.0, 0.5], [1.0, -0.2]], stds=[0.2, 0.35])
oracle = mixture.noised(sde)
t_min, t_max = torch.tensor([sde.t_min, sde.t_max], dtype=torch.float64)
x = oracle.sample(POINTS, t_min, rng=0, dtype=torch.float64)
exact = oracle.log_prob(x, t_min)


def p_T(y):
    return oracle.log_prob(y, t_max)


fine = sg.TorchDiffEq("dopri8", rtol=1e-9, atol=1e-9)
solvers = {
    "dopri5, tolerance 1e-6": sg.TorchDiffEq("dopri5", rtol=1e-6, atol=1e-6),
    "dopri8, tolerance 1e-9": fine,
    "Heun, 500 steps": sg.Heun(substeps=500),
}
print("error of log p                  mean      largest   evaluations")
for name, solver in solvers.items():
    found = sg.log_likelihood(sde, oracle.score, x, solver=solver, prior_log_prob=p_T)
    e = found.log_prob - exact
    print(f"{name:28s} {e.mean():9.1e}   {e.abs().max():.1e}   {found.nfe:4d}")
e = sg.log_likelihood(sde, oracle.score, x, solver=fine).log_prob - exact
print(f"N(0, I) for the law at t_max {e.mean():9.1e}   {e.abs().max():.1e}")
e = exact - mixture.log_prob(x)
print(f"t_min for 0                  {e.mean():9.1e}   {e.abs().max():.1e}")

for noise in ("gaussian", "rademacher"):
    how = sg.Hutchinson(probes=16, noise=noise)
    found = sg.log_likelihood(
        sde, oracle.score, x, divergence=how, solver=fine, prior_log_prob=p_T, rng=1
    )
    spread, said = (found.log_prob - exact).std(), found.standard_error.square().mean().sqrt()
    print(f"16 {noise:10s} probes: spread {spread:.3f}, standard error as reported {said:.3f}")
