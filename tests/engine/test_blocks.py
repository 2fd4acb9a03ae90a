"""Blocks: the same bits however many there are, and never a cut through what belongs together."""

import math

import pytest
import torch

import sdegen as sg
from sdegen.core.noise import Stream
from sdegen.core.rows import depends_on_batch
from sdegen.engine.blocks import block_rows

F64 = torch.float64
T = torch.linspace(0, 10, 5, dtype=F64)

_HASH = """
import hashlib, sys, torch, sdegen as sg
threads, rows, dtype = int(sys.argv[1]), int(sys.argv[2]), getattr(torch, sys.argv[3])
sde = sg.ItoProcess(lambda x, t: torch.sin(3 * x) - torch.tanh(x) * t, 0.7)
x0 = torch.linspace(-1, 1, 220_000, dtype=torch.float64).to(dtype)[:rows, None]
solver = sg.EulerMaruyama(substeps=3)
path = sg.simulate(sde, x0, [0.0, 0.1, 0.2], solver=solver, rng=11, threads=threads)
full = path.states[:, : 3 * 50_000].contiguous().numpy().tobytes()
print(hashlib.sha256(full).hexdigest())
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_full_blocks_have_one_hash(programs, dtype):
    # threads, the number of other trajectories, and the process change no bit of a full block
    hashes = {
        programs.run(threads, rows, dtype, code=_HASH)
        for threads, rows in ((1, 160_000), (2, 220_000))
    }
    assert len(hashes) == 1


def test_a_block_does_not_know_how_many_others_there_are():
    sde, n = sg.OrnsteinUhlenbeck(), 50_000
    x0 = torch.linspace(-1, 1, 2 * n + 5)[:, None]
    many = sg.simulate(sde, x0, [0.0, 0.5, 1.0], rng=3)
    few = sg.simulate(sde, x0[:n], [0.0, 0.5, 1.0], rng=3)
    assert torch.equal(many.states[:, :n], few.states)
    # and the blocks have noise of their own: over one step it is all that they differ by
    first = many.states[1, :n] - 0.5 * x0[:n]
    second = many.states[1, n : 2 * n] - 0.5 * x0[n : 2 * n]
    r = torch.corrcoef(torch.cat([first, second], 1).double().T)[0, 1]
    assert abs(float(r)) < 4.42 / math.sqrt(n)  # false alarm 1e-5


def test_every_trajectory_keeps_its_place():
    x0 = torch.arange(150_000, dtype=F64)[:, None]
    decay = sg.ItoProcess(lambda x: -x, 0.0)
    path = sg.simulate(decay, x0, [0.0, 0.5, 1.0])
    assert path.states.shape == (3, 150_000, 1)
    torch.testing.assert_close(path.final, 0.25 * x0, rtol=1e-15, atol=0)
    assert path.nfe == 2


@pytest.mark.parametrize(
    ("shape", "rows"), [((1,), 50_000), ((2,), 25_000), ((1, 8, 8), 781), ((3, 64, 64), 256)]
)
def test_a_block_is_what_fits_into_a_cache(shape, rows):
    for batch in (1, 100_000):
        assert block_rows(torch.zeros(1).expand(batch, *shape)) == rows


# --- what must not be cut


def _mean_field(x):
    return x.mean(0) - x


VP = sg.VP(sg.LinearBeta(0.1, 20.0))


def _model():
    """Whose score, asked in double precision, is that of a network in single precision."""
    network = sg.MLP(dim=2, width=64, rng=0).float()
    numbers = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=numbers)
    return sg.ScoreModel(network, VP, sg.EpsPrediction())


COUPLED = {
    "mean field": sg.ItoProcess(_mean_field, 0.5),
    "pair forces": sg.ItoProcess(lambda x: torch.sin(x[:, None] - x[None]).sum(1), 0.5),
    "noise of the mean": sg.ItoProcess(lambda x: -x, lambda x: 1 + x.mean(0).expand_as(x) ** 2),
    "one noise for all": sg.ItoProcess(lambda x: -x, lambda x: x.square().mean()),
    "where roots exist": sg.ItoProcess(lambda x: torch.sqrt(x) * x.mean(0), 0.5),
    "of short range": sg.ItoProcess(
        lambda x: torch.relu(0.01 - (x[:, None] - x[None]).abs()).sum(1) - x, 0.5
    ),
    "beside a strong force": sg.ItoProcess(lambda x: -1e4 * x**3 + _mean_field(x), 0.5),
    "weak": sg.ItoProcess(lambda x: -x + 1e-9 * x.mean(0), 0.5),
    "one of many": sg.ItoProcess(lambda x: -x + x.sum(0) / 1e6, 0.5),
    "from t = 5": sg.ItoProcess(lambda x, t: -x + (t > 5) * x.mean(0), 0.5),
}
FREE = {
    "double well": sg.ItoProcess(lambda x: x - x**3, 0.5),
    "noise of its own": sg.ItoProcess(lambda x: -x, lambda x: 1 + x * x),
    "where roots exist": sg.ItoProcess(lambda x: -torch.sqrt(x), lambda x: torch.sqrt(x)),
    "coordinates": sg.ItoProcess(lambda x: x.flip(1) - x, 0.5),
    "brownian": sg.BrownianMotion(),
    "model in single precision": sg.ReverseSDE(VP, _model().score),
    "network": sg.ItoProcess(
        lambda x: torch.tanh(x @ torch.ones(2, 64).to(x)).sum(1, True) - x, 1
    ),
}
# all at one point is where a mean field vanishes
STARTS = {
    "one point": torch.ones(4, 2),
    "spread": torch.rand(4, 2, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", COUPLED)
def test_coupling_is_seen(name, dtype, start):
    assert depends_on_batch(COUPLED[name], STARTS[start].to(dtype), T, Stream(0))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("name", FREE)
def test_free_trajectories_are_seen_to_be_free(name, dtype, start):
    times = T.flip(0) / 20 + 0.1 if name.startswith("model") else T
    assert not depends_on_batch(FREE[name], STARTS[start].to(dtype), times, Stream(0))


@pytest.mark.parametrize(("size", "d"), [(10.0, 1), (100.0, 1), (100.0, 2), (100.0, 3)])
def test_spheres_that_start_far_apart_are_seen_to_meet_later(size, d):
    def drift(x):
        apart = x[:, None] - x[None]
        distance = apart.norm(dim=-1, keepdim=True)
        return (torch.relu(1 - distance) * apart / distance.clamp(min=1e-12)).sum(1)

    spheres = sg.ItoProcess(drift, 0.5)
    for seed in range(20):
        rows = size * torch.rand(4, d, generator=torch.Generator().manual_seed(seed))
        assert depends_on_batch(spheres, rows, T, Stream(seed))


def test_one_trajectory_couples_to_nothing():
    assert not depends_on_batch(COUPLED["mean field"], torch.ones(1, 2), T, Stream(0))


def test_a_mean_field_runs_in_one_piece():
    # from one point, in more than one block's worth: cut, each block would follow its own mean
    x0, times = torch.ones(60_000, 1, dtype=F64), torch.linspace(0, 1, 5)
    sde = COUPLED["mean field"]
    found = sg.simulate(sde, x0, times, rng=0)
    told = sg.simulate(sde, x0, times, rng=0, interacting=True)
    cut = sg.simulate(sde, x0, times, rng=0, interacting=False)
    assert torch.equal(found.states, told.states)
    assert not torch.equal(found.states, cut.states)
    # the mean moves by the mean of the noise alone: mean x = 1 + σ √t N(0, 1/n)
    last = cut.final[50_000:] - found.final[50_000:]
    assert float(last.abs().max()) > 1e-4
    assert abs(float(found.final.mean()) - 1) < 4.42 * 0.5 / math.sqrt(60_000)


@pytest.mark.parametrize("word", [1, "yes", 0.0])
def test_interacting_is_yes_or_no_or_none(word, as_user):
    said = rf"interacting must be True, False or None \(find out\), but is {word!r}"
    with pytest.raises(TypeError, match=said):
        sg.simulate(FREE["brownian"], torch.zeros(3, 1), [0.0, 1.0], interacting=word)
    with pytest.raises(TypeError, match=said):
        sg.run_ensemble(
            FREE["brownian"], torch.zeros(1, 1), [0.0, 1.0], trajectories=3, interacting=word,
            observables=[sg.Moments()],
        )  # fmt: skip


def test_free_trajectories_run_in_blocks():
    x0, times = torch.ones(60_000, 1, dtype=F64), torch.linspace(0, 1, 3)
    sde = FREE["double well"]
    found = sg.simulate(sde, x0, times, rng=0)
    assert torch.equal(found.states, sg.simulate(sde, x0, times, rng=0, interacting=False).states)
    assert not torch.equal(
        found.states, sg.simulate(sde, x0, times, rng=0, interacting=True).states
    )


def test_one_parameter_for_each_trajectory_needs_one_piece():
    n = 60_000
    k = torch.linspace(0.1, 2, n, dtype=F64)[:, None]
    sde, x0 = sg.ItoProcess(lambda x: -k * x, 0.0), torch.ones(n, 1, dtype=F64)
    path = sg.simulate(sde, x0, [0.0, 0.5, 1.0], interacting=True)
    torch.testing.assert_close(path.final, (1 - 0.5 * k) ** 2, rtol=1e-14, atol=1e-17)
    with pytest.raises(ValueError, match=r"takes all 60000 rows of x0, but not 4.* parameters="):
        sg.simulate(sde, x0, [0.0, 0.5, 1.0])


def test_differentiable_runs_go_whole():
    x0 = torch.ones(60_000, 1, dtype=F64)
    sde, times = sg.OrnsteinUhlenbeck(), [0.0, 0.5]
    whole = sg.simulate(sde, x0, times, rng=0, interacting=True)
    assert torch.equal(sg.simulate(sde, x0, times, rng=0, differentiable=True).final, whole.final)
