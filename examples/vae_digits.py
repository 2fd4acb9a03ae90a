"""A variational autoencoder of digits: what two or eight numbers can say
======================================================================

Each pixel has a spread of its own, which is learned. The map shows what places of the latent plane
decode to, spaced so that N(0, I) puts the same mass into each cell; beside it lie the posterior
means of unseen digits, whose bound has to beat a Gaussian of the data's covariance.

It prints, in 58 s of one core::

    Gaussian:  log p = 4.8 nats a digit
    2 latents: log p ≥ -1.2, and by 64 importance weights 0.1; KL to the prior 4.5
    8 latents: log p ≥ 5.9, and by 64 importance weights 7.8; KL to the prior 10.2
"""

import torch

import sdegen as sg
from sdegen.plots import style
from sdegen.plots.tiles import tiles

STEPS = 6_000
SIDE = 8  # digits along each side of a sheet

digits = sg.data.digits(rng=0)
x, unseen = digits.train, digits.test
flat = x.flatten(1).double()
least = 1e-3 * torch.eye(64, dtype=torch.float64)  # best of 1e-4 … 1 on the validation digits
gaussian = sg.Gaussian(flat.mean(0), flat.T.cov() + least)
known = gaussian.log_prob(unseen.flatten(1)).mean()
print(f"Gaussian:  log p = {known:.1f} nats a digit")
models, said = {}, []
for k in (2, 8):
    encoder = sg.variational.Perceptron(64, 2 * k, width=32, rng=0)
    decoder = sg.variational.Perceptron(k, (1, 8, 8), width=32, rng=1)
    vae = models[k] = sg.VAE(encoder, decoder, k, std=x.std(0).clamp_min(0.03))
    config = sg.FitConfig(STEPS, batch_size=128, learning_rate=2e-3, keep="best")
    others, fresh = digits.validation, sg.data.redequantise
    sg.fit(vae, x, sg.VAELoss(), config, validation=others, augment=fresh, rng=0)
    elbo, tight = vae.bound(unseen, rng=1), vae.bound(unseen, samples=4, importance=64, rng=1)
    found = f"{elbo.log_prob.mean():.1f}, and by 64 importance weights {tight.log_prob.mean():.1f}"
    print(f"{k} latents: log p ≥ {found}; KL to the prior {elbo.prior.mean():.1f}")
    said.append(f"log p ≥ {elbo.log_prob.mean():.1f} nats, by weights {tight.log_prob.mean():.1f}")

figure, axes = style.panels("ABC", 13.0, 4.9)
line = torch.special.ndtri((torch.arange(SIDE) + 0.5) / SIDE)
places = torch.cartesian_prod(-line, line).flip(1)  # from the top row down
latents = sg.Gaussian(torch.zeros(8)).sample(SIDE**2, rng=3).float()
tiles(
    axes["A"], models[2].decode(places).detach(), f"2 latents at quantiles of N(0, I)\n{said[0]}"
)
tiles(axes["C"], models[8].decode(latents).detach(), f"8 latents from N(0, I)\n{said[1]}")
with torch.no_grad():
    means = models[2].posterior(unseen).mean
for digit in range(10):  # a number is its own marker
    of = means[digits.test_labels == digit].T
    axes["B"].plot(*of, ls="", marker=f"${digit}$", ms=5, mew=0.3, color=style.look(digit)[1])
style.title(axes["B"], f"posterior means of unseen digits\nGaussian: log p = {known:.1f} nats")
axes["A"].set(xlabel="z₁ →", ylabel="z₂ →")
axes["B"].set(xlabel="z₁", ylabel="z₂")
figure.savefig("vae_digits.png")
