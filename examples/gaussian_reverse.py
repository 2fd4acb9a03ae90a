"""Which SDEs have a Gaussian reverse, and at what step?
=====================================================

A diffusion model draws each step backwards from a Gaussian. q(x_{t-dt} | x_t) by Bayes says how
far that is from the truth: KL(q ‖ Gaussian of its moments), averaged over p_t. With additive noise
it falls as dt³ in the end, linear drift or not: any such process may noise data. With
multiplicative noise it falls as dt only; but in the coordinate u = ∫dx/g the same process has
additive noise, and dt³ is back. It prints, in 16 s of one core::

    VP, linear drift           KL 8.5e-03 at dt = 0.32, 3.9e-06 at 0.04, as dt^3.24
    double well                KL 9.3e-03 at dt = 0.32, 4.3e-05 at 0.04, as dt^2.71
    multiplicative noise       KL 4.8e-03 at dt = 0.32, 4.0e-04 at 0.04, as dt^0.70
    the same, in u = ∫dx/g     KL 9.2e-03 at dt = 0.32, 8.2e-07 at 0.04, as dt^3.76
    VP at dt = 0.04: KL with DDPM's beta 1.7e-04, with beta tilde 6.0e-04
    1/lambda of the double well is 5.49; from x = -1, KL to rest is 0.01 at t = 11.4
"""

import math

import torch

import sdegen as sg

STEPS = (0.32, 0.16, 0.08, 0.04)
T = 0.5

mixture = sg.GaussianMixture([0.4, 0.6], [-0.7, 0.6], stds=0.3)
vp = sg.VP(sg.ConstantBeta(1.0))
well = sg.ItoProcess(lambda x: x - x**3, 0.7, autonomous=True)
# g = sqrt(1 + x^2/4) is cosh(u/2) at x = 2 sinh(u/2): there dU = (f/g - g'/2) dt + dW
bent = sg.ItoProcess(lambda x: -2 * x, lambda x: (1 + x**2 / 4).sqrt(), autonomous=True)
straight = sg.ItoProcess(lambda u: -4.25 * torch.tanh(u / 2), 1.0, autonomous=True)
u = torch.linspace(-5.0, 5.0, 301, dtype=torch.float64)
p = mixture.log_prob(2 * torch.sinh(u / 2)[:, None]).exp() * torch.cosh(u / 2)

problems = {
    "VP, linear drift": (vp, mixture, None),
    "double well": (well, mixture, sg.Grid(-3.2, 3.2, 400)),
    "multiplicative noise": (bent, mixture, sg.Grid(-9.0, 9.0, 400)),
    "the same, in u = ∫dx/g": (straight, sg.Density(u, p).normalized(), None),
}
kernels = {
    name: [sg.reverse_kernel(sde, law, T, dt, grid=grid) for dt in STEPS]
    for name, (sde, law, grid) in problems.items()
}
drawn = {}
for name, row in kernels.items():
    first, before, last = row[0], row[-2], row[-1]
    power = math.log(before.mean_kl / last.mean_kl) / math.log(before.dt / last.dt)
    print(f"{name:25}  KL {first.mean_kl:.1e} at dt = {first.dt}, ", end="")
    print(f"{last.mean_kl:.1e} at {last.dt}, as dt^{power:.2f}")
    drawn[f"{name}: dt^{power:.2f}"] = row

last = kernels["VP, linear drift"][-1]
larger, smaller = last.kl_with(last.beta), last.kl_with(last.beta_tilde)
print(f"VP at dt = {last.dt}: KL with DDPM's beta {larger:.1e}, with beta tilde {smaller:.1e}")
rest = sg.noising_time(well, -1.0, tolerance=0.01)
said = f"from x = -1, KL to rest is 0.01 at t = {rest.time:.1f}"
print(f"1/lambda of the double well is {1 / rest.slowest_rate:.2f}; {said}")
sg.plots.reverse_kernels(drawn).savefig("gaussian_reverse.png")
