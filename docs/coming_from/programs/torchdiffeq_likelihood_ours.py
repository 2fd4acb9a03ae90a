import torch

import sdegen as sg

sde = sg.VP(sg.LinearBeta(0.1, 20.0))
score = sg.GaussianMixture([1.0], [0.0], stds=0.5).noised(sde).score
x = torch.tensor([[0.3], [-0.8]], dtype=torch.float64)
answer = sg.log_likelihood(sde, score, x).log_prob[0]
