"""What `simulate` costs beyond the network's own calls.

python -m benchmarks.overhead

An MLP of width 256 on a batch of 512 is asked 200 times by each solver. The network clocks itself;
what is left of the run's wall time is everything else: the score made from the output, the solver,
the checks for what is not finite, the record. Medians of several runs.
"""

import argparse
import statistics
import time

import torch

import sdegen as sg
from benchmarks.record import write

SOLVERS = {
    "DDIM": sg.DDIM(),
    "ExponentialAdams(2, 'x0')": sg.ExponentialAdams(2, "x0"),
    "ExponentialAdams(3, 'eps')": sg.ExponentialAdams(3, "eps"),
    "ExponentialAdamsMoulton(2, 'v')": sg.ExponentialAdamsMoulton(2, "v"),
    "KarrasHeun": sg.KarrasHeun(),
}


class Clocked(torch.nn.Module):
    """A network that adds up the time that its calls take."""

    def __init__(self, network):
        super().__init__()
        self.network, self.seconds = network, 0.0

    def forward(self, x, t):
        start = time.perf_counter()
        output = self.network(x, t)
        self.seconds += time.perf_counter() - start
        return output


def overhead(name, *, steps=200, repeats=7, batch=512, width=256, dim=2, eta=0.0):
    """One row: the share of the wall time that is not the network's."""
    sde = sg.VP(sg.LinearBeta(0.1, 20.0))
    network = Clocked(sg.MLP(dim=dim, width=width, rng=0))
    model = sg.ScoreModel(network, sde, sg.EpsPrediction())
    dynamics, times = sg.ReverseSDE(sde, model.score, eta), sg.timesteps.log_snr(sde, steps)
    x = sde.prior((batch, dim), rng=0)
    shares, walls = [], []
    for _ in range(repeats + 1):  # the first is for warming up
        network.seconds = 0.0
        start = time.perf_counter()
        run = sg.simulate(
            dynamics, x, times, solver=SOLVERS[name], rng=1, keep_path=False, interacting=False
        )
        walls.append(time.perf_counter() - start)
        shares.append(1 - network.seconds / walls[-1])
    wall = statistics.median(walls[1:])
    return {
        "solver": name, "eta": eta, "batch": batch, "width": width, "dim": dim, "nfe": run.nfe,
        "microseconds a call": round(1e6 * wall / run.nfe, 1),
        "share beyond the network": round(statistics.median(shares[1:]), 4),
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def main(quick=False):
    size = {"steps": 5, "repeats": 1} if quick else {}
    rows = [overhead(name, eta=eta, **size) for name in SOLVERS for eta in (0.0, 1.0)
            if (name, eta) != ("KarrasHeun", 1.0)]  # fmt: skip
    for row in rows:
        print(row)
    write("overhead", {"simulate beyond the network": rows}, quick)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a rehearsal with small sizes; writes nothing"
    )
    main(parser.parse_args().quick)
