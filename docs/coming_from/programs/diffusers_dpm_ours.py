import torch

import sdegen as sg

sde = sg.VP(sg.LinearBeta(0.1, 20.0))
score = sg.GaussianMixture([1.0], [0.5], stds=0.3).noised(sde).score  # or a ScoreModel's
flow = sg.ReverseSDE(sde, score, eta=0.0)
x_T = sde.prior((4_000, 1), rng=0, dtype=torch.float64)
times = sg.timesteps.log_snr(sde, 20)
answer = sg.simulate(flow, x_T, times, solver=sg.ExponentialAdams(2)).final.std()
