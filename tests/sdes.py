"""The list of all public SDEs: a new class joins it, and is tested by the contracts."""

import torch

import sdegen as sg

F64 = torch.float64

BETAS = {
    "constant": sg.ConstantBeta(3.0, t_max=2.0),
    "linear": sg.LinearBeta(0.1, 20.0),
    "quadratic": sg.QuadraticBeta(0.1, 20.0),
    "cosine": sg.CosineBeta(),
}
PATHS = {
    f"{kind.__name__}, {name}": kind(beta)
    for name, beta in BETAS.items()
    for kind in (sg.VP, sg.SubVP)
}
PATHS["VE, geometric"] = sg.VE(sg.GeometricSigma(0.01, 50.0))
PATHS["rectified flow"] = sg.RectifiedFlow()
PATHS["EDM"] = sg.EDM()
PATHS["VP, table"] = sg.VP(sg.TabulatedBeta((1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)))

A = [[1.0, 0.4], [-0.3, 0.8]]
LINEAR = {
    "LinearSDE, scalar": sg.LinearSDE(A, 0.6, [0.5, -0.2]),
    "LinearSDE, diagonal": sg.LinearSDE(A, [0.6, 1.1], 0.3),
    "LinearSDE, diagonal matrix": sg.LinearSDE(A, [[0.6, 0.0], [0.0, 1.1]]),
    "LinearSDE, correlated": sg.LinearSDE(A, [[0.7, 0.0], [-0.9, 0.5]], [0.5, -0.2]),
    "LinearSDE, one noise": sg.LinearSDE([[0.0, -1.0], [1.0, 0.5]], [[0.0], [1.0]]),
    "LinearSDE, three noises": sg.LinearSDE(A, [[0.7, 0.1, 0.2], [-0.9, 0.5, 0.1]]),
    "LinearSDE, critical": sg.LinearSDE([[0.0, -1.0], [1.0, 2.0]], [[0.0], [1.0]], [0.0, 1.0]),
    "LinearSDE, stiff": sg.LinearSDE([[1e3, 0.0], [1.0, 1.0]], [[20.0, 1.0], [0.0, 1.0]]),
    "LinearSDE, free": sg.LinearSDE([[0.0, -1.0], [0.0, 0.0]], [[0.0], [1.0]]),
}
TIMED = {
    "LinearSDE, of time": sg.LinearSDE(
        lambda t: [[1 + 0.5 * torch.sin(3 * t), 0.4], [-0.3, 0.8 + t]],
        lambda t: [[0.7, 0.1 * t, 0.2], [-0.9, 0.5, torch.cos(t)]],
        lambda t: [t, 1.0],
    ),
    "LinearSDE, noise of time": sg.LinearSDE(A, lambda t: [0.6 + t, 1.1], 0.3),
    "LinearSDE, scalar of time": sg.LinearSDE(A, lambda t: 0.6 + t, lambda t: 0.3 * t),
}
WIGGLE = {"drift": lambda x: torch.sin(x), "diffusion": lambda x: 0.5 * (1 + x**2)}


def turning(x):
    """G of two coordinates and three noises, which do not commute; every reading is another."""
    a, b = x.unbind(1)
    first = torch.stack([1 + 0.1 * (a * b).sin(), 0.5 * a.sin(), 0.3 * b.cos()], -1)
    second = torch.stack([0.4 * (a * a).cos(), 1 + 0.5 * b.cos(), 0.3 * (a * b).sin()], -1)
    return torch.stack([first, second], 1)


_LAW = sg.GaussianMixture([1.0], [[0.0, 0.0]], stds=0.5).noised(PATHS["VP, linear"])
_REVERSED = {
    f"ReverseSDE, {eta}": sg.ReverseSDE(PATHS["VP, linear"], _LAW.score, eta)
    for eta in (0.0, 0.5, 1.0)
}
_CHAIN = sg.DDPM.discretize(PATHS["VP, linear"], 10)
SDES = (
    {
        "BrownianMotion": sg.BrownianMotion(0.7),
        "OrnsteinUhlenbeck": sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9),
        "OrnsteinUhlenbeck, flow": sg.OrnsteinUhlenbeck(1.3, 0.2, 0.0),
        "Langevin": sg.Langevin(sg.Quadratic(2.0), 0.5),
        "RateNetwork": sg.RateNetwork([[0.0, 1.5], [-1.0, 0.3]], [0.1, 0.2], 0.4),
        "ItoProcess, number": sg.ItoProcess(lambda x: x - x**3, 0.7),
        "ItoProcess, of t": sg.ItoProcess(lambda x, t: -x * t, lambda t: 1 + t),
        "ItoProcess, each": sg.ItoProcess(
            lambda x: -x, lambda x, t: torch.tensor([0.5, 2.0]).to(x), noise="additive"
        ),
        "ItoProcess, a row": sg.ItoProcess(
            lambda x: -x, lambda x: 1 + 0.1 * x.square().sum(1, keepdim=True)
        ),
        **{
            f"ItoProcess, {word}": sg.ItoProcess(**WIGGLE, interpretation=word)
            for word in ("ito", "stratonovich", "klimontovich")
        },
        **{
            f"ItoProcess, channels, {word}": sg.ItoProcess(
                torch.sin, turning, channels=3, interpretation=word
            )
            for word in ("ito", "stratonovich", "klimontovich", "post_point")
        },
        "ItoProcess, matrix": sg.ItoProcess(
            lambda x: -x, [[0.3, 0.0, 0.1], [-0.2, 0.4, 0.0]], channels=3
        ),
        "ItoProcess, one noise": sg.ItoProcess(
            lambda x: -x, lambda x: 0.5 * x[..., None], channels=1
        ),
        "ItoProcess, matrix of t": sg.ItoProcess(
            lambda x: -x, lambda t: torch.tensor([[0.3, 0.0], [-0.2, 0.4]]) * (1 + t), channels=2
        ),
        "JumpDiffusion": sg.JumpDiffusion(
            sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9),
            sg.CompoundPoisson(2.0, torch.distributions.Laplace(torch.zeros(2), 0.5)),
        ),
        "JumpDiffusion, stable": sg.JumpDiffusion(
            sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9), sg.AlphaStable(1.5, scale=0.3)
        ),
        "Coloured": sg.Coloured(sg.OrnsteinUhlenbeck(1.3, 0.2, 0.9), 0.5),
        "Coloured, multiplicative": sg.Coloured(
            sg.ItoProcess(**WIGGLE, interpretation="stratonovich"), [0.5]
        ),
        "StationarySDE": sg.StationarySDE(lambda x: -(x**2) / 2 - (0.3 * x).sin(), 0.7),
        "StationarySDE, mobility": sg.StationarySDE(
            lambda x: -x.square().sum(1) / 2,
            lambda x: 1 + 0.2 * x.sin(),
            [[0.0, 0.4], [-0.4, 0.0]],
        ),
        "StationarySDE, matrices": sg.StationarySDE(
            lambda x: -x.square().sum(1) / 2,
            lambda x: torch.diag_embed(1 + 0.2 * x.flip(1).sin()),
            lambda x: x[:, :1, None].cos() * torch.tensor([[0.0, 0.4], [-0.4, 0.0]]).to(x),
            channels=2,
        ),
        "GeneralizedLangevin": sg.GeneralizedLangevin(
            sg.DoubleWell(), sg.PronySeries(2.0, 0.5), 0.4, mass=1.5, friction=0.3
        ),
        "UnderdampedLangevin": sg.UnderdampedLangevin(sg.DoubleWell(), 0.8, 0.4, mass=1.5),
        "UnderdampedLangevin, friction of x": sg.UnderdampedLangevin(
            sg.DoubleWell(), lambda x: 0.5 + x**2, 0.4, mass=[1.5]
        ),
        "UnderdampedLangevin, driven": sg.UnderdampedLangevin(
            lambda x, t: (x - 0.3 * t) ** 4, [0.7], 0.4
        ),
        "UnderdampedLangevin, flow": sg.UnderdampedLangevin(sg.Quadratic(), 0.0),
        "Langevin, driven": sg.Langevin(lambda x, t: (1 + t) * x**4 / 4, 0.4),
        "ActiveBrownian": sg.ActiveBrownian(1.2, 0.3, 0.7, angular_velocity=0.4),
        "ActiveBrownian, trapped": sg.ActiveBrownian(1.2, 0.3, potential=sg.DoubleWell()),
        "StochasticHeat": sg.StochasticHeat((2,), 0.7, 0.4, 0.3),
        "StochasticHeat, walls": sg.StochasticHeat((2,), 0.7, 0.4, 0.3, ends="reflecting"),
        "Blurring": sg.Blurring((2,), 3.0),
        "DDPM": _CHAIN,
        "AncestralChain": sg.AncestralChain(_CHAIN, _LAW.score),
    }
    | _REVERSED
    | LINEAR
    | TIMED
    | PATHS
)
