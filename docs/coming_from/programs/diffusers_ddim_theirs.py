import torch
from diffusers import DDIMScheduler


def network(x, k):  # the exact ε of data N(0.5, 0.09)
    kept = scheduler.alphas_cumprod[k]
    return (1 - kept).sqrt() * (x - 0.5 * kept.sqrt()) / (0.09 * kept + 1 - kept)


scheduler = DDIMScheduler(1000, beta_start=1e-4, beta_end=0.02, clip_sample=False)
scheduler.set_timesteps(50)
x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
for k in scheduler.timesteps:
    x = scheduler.step(network(x, k), k, x, eta=0.0).prev_sample
answer = x[0, 0]
