import torch

import sdegen as sg


def denoiser(x, sigma):  # E[x0 | x] of data N(0.5, 0.09)
    return (0.09 * x + sigma[:, None] ** 2 * 0.5) / (0.09 + sigma[:, None] ** 2)


model = sg.from_denoiser(denoiser)
answer = sg.log_likelihood(model.sde, model.score, torch.tensor([[0.3], [0.9]])).log_prob[0]
