import torch
from k_diffusion.sampling import log_likelihood


def denoiser(x, sigma):  # E[x0 | x] of data N(0.5, 0.09)
    return (0.09 * x + sigma[:, None] ** 2 * 0.5) / (0.09 + sigma[:, None] ** 2)


x = torch.tensor([[0.3], [0.9]])
answer = log_likelihood(denoiser, x, 0.002, 80.0)[0][0]
