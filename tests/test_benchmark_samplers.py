"""The benchmark of samplers: ours before the peers, budgets kept, peers run as they are."""

import pytest

import sdegen as sg
from benchmarks import peers, problems, samplers


@pytest.fixture(scope="module")
def rehearsed():
    return samplers.main(quick=True)


def test_five_evaluations_ours_before_the_peers_and_calibrated_before_both(rehearsed):
    (line,) = rehearsed["distance to the exact flow: ours, the best of all peers, calibrated"]
    assert line["evaluations"] == 5
    assert line["calibrated"] < 0.5 * line["error"]  # 48 pilot states
    if "its error" in line:  # where a peer is installed
        assert line["error"] < line["its error"]
    (cost,) = rehearsed["what a calibration costs, and when it pays"]
    assert cost["evaluations of a pilot state"] > 5 * 20


def test_no_sampler_takes_more_than_its_budget():
    rows = samplers.flow_rows(2, 5, True)
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


def test_a_ratio_of_the_schedule_gives_its_time_back():
    model = peers.Counted(problems.SDE, None)
    t = sg.timesteps.uniform(problems.SDE, 50)
    assert float((model.time(model.ratio(t)) / t - 1).abs().max()) < 1e-12
