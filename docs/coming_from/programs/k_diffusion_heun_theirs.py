import torch
from k_diffusion.sampling import get_sigmas_karras, sample_heun


def denoiser(x, sigma):  # E[x0 | x] of data N(0.5, 0.09)
    return (0.09 * x + sigma[:, None] ** 2 * 0.5) / (0.09 + sigma[:, None] ** 2)


sigmas = get_sigmas_karras(18, 0.002, 80.0)
x_T = 80 * torch.randn(4_000, 1, generator=torch.Generator().manual_seed(0))
answer = sample_heun(denoiser, x_T, sigmas, disable=True).std()
