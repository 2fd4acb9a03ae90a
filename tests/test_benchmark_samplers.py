"""The benchmark of samplers: ours before the peers, budgets kept, peers run as they are."""

import functools
import json

import pytest
import torch

import sdegen as sg
from benchmarks import noisy, peers, problems, samplers, trained

# what they share is a rehearsal of a minute
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts():
    """The parts of the benchmark: rows of one that are asked for again are not computed again."""
    return {name: functools.cache(part) for name, part in samplers.PARTS.items()}


@pytest.fixture(scope="module")
def rehearsed(parts):
    """A rehearsal; of all peers, which run on the exact score, one in four on trained ones too."""
    racing = trained.racing_peers
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "PARTS", parts)
        patch.setattr(trained, "racing_peers", lambda model: racing(model)[::4])
        return samplers.main(quick=True)


def test_five_evaluations_ours_before_the_peers_and_calibrated_before_both(rehearsed):
    (line,) = rehearsed["distance to the exact flow: ours, the best of all peers, calibrated"]
    assert line["evaluations"] == 5
    assert line["calibrated"] < 0.5 * line["error"]  # 48 pilot states
    if "its error" in line:  # where a peer is installed
        assert line["error"] < line["its error"]
    (cost,) = rehearsed["what a calibration costs, and when it pays"]
    assert cost["evaluations of a pilot state"] > 5 * 20


def test_no_sampler_takes_more_than_its_budget(parts):
    rows = parts["flow"](2, 5, True)
    assert {row["nfe"] for row in rows if row["library"] == "sdegen"} == {4, 5}
    assert all(row["nfe"] is None or row["nfe"] <= 5 for row in rows)


@pytest.mark.skipif("diffusers" in peers.missing(), reason="diffusers is not installed")
def test_peers_that_are_one_of_ours_agree_with_it():
    """The adaptors: same nodes, same score, same arithmetic."""
    here = problems.problem(2, 32)
    model = peers.Counted(problems.SDE, here.score)
    times = sg.timesteps.karras(problems.SDE, 9)
    ours = {
        "DDIM": sg.DDIM(),
        "EulerDiscrete": sg.DDIM(),
        "HeunDiscrete": sg.KarrasHeun(),
        "KDPM2Discrete": sg.DPM2(),
        "DPMSolverMultistep dpmsolver++ 2 midpoint": sg.ExponentialAdams(2, "x0", "midpoint"),
        "DPMSolverMultistep dpmsolver 2 heun": sg.ExponentialAdams(2, "eps"),
    }
    found = {peer.name: peer for peer in peers.deterministic() if peer.library == "diffusers"}
    for name, solver in ours.items():
        theirs, calls = peers.run(found[name], model, here.x_T, times)
        out = sg.simulate(here.flow, here.x_T, times, solver=solver, keep_path=False)
        assert calls == out.nfe, name
        # float64 tables; PyTorch's own rounding of a σ in float32 would be 1e-7
        assert float((theirs - out.final).abs().max()) < 1e-8, name


@pytest.mark.skipif("diffusers" in peers.missing(), reason="diffusers is not installed")
def test_the_coefficients_of_a_peer_are_measured():
    """Impulses tell a method; the one of ours by the same name has a closed form."""
    times = sg.timesteps.log_snr(noisy.LINE, 7)
    dynamics = sg.ReverseSDE(noisy.LINE, lambda x, t: -x)
    found = {peer.name: peer for peer in peers.stochastic() if peer.library == "diffusers"}
    table = peers.coefficients(
        found["DPMSolverMultistep sde-dpmsolver++ 2 midpoint"], noisy.LINE, times
    )
    ours = sg.ExponentialAdams(2, "x0", "midpoint").coefficients(dynamics, times)
    for one, other in (
        (table.decay + table.states[:, 0], ours.decay + ours.states[:, 0]),
        (table.states[:, 1], ours.states[:, 1]),
        (table.scores, ours.scores),
        (table.noise, ours.noise),
    ):
        assert float((one - other).abs().max()) < 1e-12
    assert peers.coefficients(found["DDPM"], noisy.LINE, times).states.shape[1] == 1
    # of order 3 it remembers two states, which shows
    third = found["DPMSolverMultistep sde-dpmsolver++ 3"]
    assert peers.coefficients(third, noisy.LINE, times) is None


@pytest.mark.skipif("diffusers" in peers.missing(), reason="diffusers is not installed")
def test_peers_run_on_a_network_through_the_adaptors():
    """The same as ours on its score, to the float32 of the network; the network counts."""
    model = sg.ScoreModel(sg.MLP(dim=2, rng=0), problems.SDE, sg.EpsPrediction())
    flow = sg.ReverseSDE(problems.SDE, model.score, eta=0.0)
    x_T = problems.SDE.prior((64, 2), rng=0, dtype=torch.float64)
    times = sg.timesteps.log_snr(problems.SDE, 8)
    adapted = peers.Adapted(model, (2,))
    ours = {
        ("diffusers", "DDIM"): sg.DDIM(),
        ("diffusers", "KDPM2Discrete"): sg.DPM2(),
        ("k-diffusion", "sample_dpmpp_2m"): sg.ExponentialAdams(2, "x0", "midpoint"),
        ("azula", "DDIMSampler"): sg.DDIM(),
    }
    for peer in peers.deterministic():
        solver = ours.get((peer.library, peer.name))
        if solver is not None:
            theirs, calls = peers.run(peer, adapted, x_T, times)
            out = sg.simulate(flow, x_T, times, solver=solver, keep_path=False)
            assert calls == out.nfe, peer.label
            # times are found from noise levels by bisection, and told to the network in float32
            assert float((theirs - out.final).abs().max()) < 1e-4, peer.label


def test_a_part_run_alone_keeps_the_others(rehearsed, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(samplers, "RESULTS", tmp_path)
    monkeypatch.setattr(samplers, "ALL", tmp_path / "all" / "samplers.json")
    monkeypatch.setattr(samplers, "write", lambda *_: None)
    monkeypatch.setattr(samplers, "draw", lambda *_: None)
    part = {"date": "2000-01-01", "seconds": 60, "rows": parts["kl"](True)}
    tables = samplers.report({"kl": part}, quick=False)
    assert json.loads(samplers.ALL.read_text()) == {"kl": part}
    assert tables["what a run of each part cost"] == [
        {"part": "kl", "date": "2000-01-01", "CPU minutes": 1.0}
    ]
    title = next(title for title in tables if title.startswith("noisy samplers, a line"))
    assert tables[title] == rehearsed[title]


def test_a_ratio_of_the_schedule_gives_its_time_back():
    model = peers.Counted(problems.SDE, None)
    t = sg.timesteps.uniform(problems.SDE, 50)
    assert float((model.time(model.ratio(t)) / t - 1).abs().max()) < 1e-12
