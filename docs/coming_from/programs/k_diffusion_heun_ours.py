import sdegen as sg


def denoiser(x, sigma):  # E[x0 | x] of data N(0.5, 0.09)
    return (0.09 * x + sigma[:, None] ** 2 * 0.5) / (0.09 + sigma[:, None] ** 2)


model = sg.from_denoiser(denoiser)
flow = sg.ReverseSDE(model.sde, model.score, eta=0.0)
x_T, times = model.sde.prior((4_000, 1), rng=0), sg.timesteps.karras(model.sde, 18)
answer = sg.simulate(flow, x_T, times, solver=sg.KarrasHeun()).final.std()
