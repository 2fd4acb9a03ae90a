import torch
from diffusers import DPMSolverMultistepScheduler


def network(x, k):  # the exact ε of data N(0.5, 0.09)
    kept = scheduler.alphas_cumprod[k]
    return (1 - kept).sqrt() * (x - 0.5 * kept.sqrt()) / (0.09 * kept + 1 - kept)


table = {"beta_start": 1e-4, "beta_end": 0.02}
scheduler = DPMSolverMultistepScheduler(1000, **table, use_karras_sigmas=True)
scheduler.set_timesteps(20)
generator = torch.Generator().manual_seed(0)
x = torch.randn(4_000, 1, generator=generator, dtype=torch.float64)
for k in scheduler.timesteps:
    x = scheduler.step(network(x, k), k, x).prev_sample
answer = x.std()
