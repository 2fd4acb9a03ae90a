"""Rows: what depends on the place of a trajectory, and parameters that are cut with the blocks."""

import pytest
import torch

import sdegen as sg

F64 = torch.float64
T = torch.linspace(0, 2, 21)
N = 120_000  # more than two blocks, and a rest


def _rates(dtype=F64):
    return torch.linspace(0.5, 2.0, N, dtype=dtype)[:, None]


def _ends(sde, n=N, **keywords):
    path = sg.simulate(
        sde, torch.ones(n, 1, dtype=F64), T, solver=sg.EulerMaruyama(10), keep_path=False,
        **keywords,
    )  # fmt: skip
    return path.final[[0, n // 2, -1]].flatten()


# --- one parameter for each trajectory


def test_parameters_are_cut_with_the_blocks():
    k = _rates()
    decay = sg.ItoProcess(lambda x, k: -k * x, 0.0, parameters={"k": k})
    # Euler's own, (1 − 0.01 k)^200
    expected = (1 - 0.01 * k[[0, N // 2, -1], 0]) ** 200
    torch.testing.assert_close(_ends(decay), expected, rtol=1e-13, atol=0)
    whole = sg.ItoProcess(lambda x: -k * x, 0.0)
    assert torch.equal(_ends(decay), _ends(whole, interacting=True))


@pytest.mark.parametrize(
    "drift",
    [
        lambda x, t, k: -k * x,
        lambda x, k, t: -k * x,
        lambda x, *, k: -k * x,
        lambda x, *, t, k: -k * x,
        lambda x, t, **parameters: -parameters["k"] * x,
        lambda x, k=1.0: -k * x,
    ],
)
def test_parameters_come_by_name(drift):
    k = torch.tensor([[0.5], [2.0]], dtype=F64)
    sde = sg.ItoProcess(drift, 0.0, parameters={"k": k})
    found = sg.simulate(sde, torch.ones(2, 1, dtype=F64), [0.0, 0.1, 0.2]).final
    torch.testing.assert_close(found, (1 - 0.1 * k) ** 2, rtol=1e-15, atol=0)


def test_the_bits_do_not_depend_on_the_blocks():
    k = _rates()
    sigma = 0.1 + k
    about = {"k": k, "sigma": sigma}
    sde = sg.ItoProcess(
        lambda x, t, k: -k * x, lambda x, sigma: sigma * (1 + 0 * x), parameters=about
    )
    x0 = torch.ones(N, 1, dtype=F64)
    all_of = sg.simulate(sde, x0, T, rng=0, keep_path=False).final
    first = slice(50_000)
    few = sg.ItoProcess(
        lambda x, t, k: -k * x, lambda x, sigma: sigma * (1 + 0 * x),
        parameters={name: value[first] for name, value in about.items()},
    )  # fmt: skip
    assert torch.equal(all_of[first], sg.simulate(few, x0[first], T, rng=0).final)
    for threads in (1, 2):
        again = sg.simulate(sde, x0, T, rng=0, keep_path=False, threads=threads).final
        assert torch.equal(all_of, again)
    # and run_ensemble takes the same steps
    run = sg.run_ensemble(
        sde, x0[:1], T, trajectories=N, observables=[sg.Moments()], rng=0, progress=False
    )
    torch.testing.assert_close(
        run.observables["moments"].mean[-1], all_of.mean(0), rtol=1e-12, atol=1e-14
    )


@pytest.mark.parametrize("channels", [None, 2])
def test_readings_and_milstein_take_parameters_of_trajectories(channels):
    # dX = k X ∘ dW (+ 0.3 X ∘ dW₂): the Itô drift is ½ (k² + 0.09) X, in each block its own
    k, h = torch.linspace(0.1, 2.0, N, dtype=F64)[:, None], 0.01

    def diffusion(x, k):
        return k * x if channels is None else torch.stack([k * x, 0.3 * x], -1)

    sde = sg.ItoProcess(
        lambda x: 0 * x, diffusion, channels=channels, interpretation="stratonovich",
        parameters={"k": k},
    )  # fmt: skip
    x0, times = torch.ones(N, 1, dtype=F64), [0.0, h]
    added = 0.5 * (k**2 + (0.0 if channels is None else 0.09))
    torch.testing.assert_close(sde.drift(x0, torch.tensor(0.0)).detach(), added)
    path = sg.BrownianPath(0, times)
    euler, milstein = (
        sg.simulate(sde, x0, times, solver=solver, brownian=path, threads=2).final
        for solver in (sg.EulerMaruyama(), sg.Milstein())
    )
    # S = g gᵀ commutes: Milstein adds ½ ((g·w)² − g² h)
    moved = euler - 1 - added * h
    torch.testing.assert_close(milstein - euler, 0.5 * (moved**2 - 2 * added * h))


def test_an_observable_gets_the_noise_of_its_own_rows():
    # between two steps a path passes with probability exp(−2 a b/σ² dt): σ is each trajectory's
    sigma = torch.full((4000, 1), 0.5, dtype=F64)
    sigma[2000:] = 1e-3
    still = sg.ItoProcess(
        lambda x: 0 * x, lambda x, sigma: sigma, noise="additive", parameters={"sigma": sigma}
    )
    passage = sg.FirstPassage(above=1.0)
    run = sg.run_ensemble(
        still, torch.zeros(1, 1, dtype=F64), [0.0, 4.0], trajectories=4000,
        solver=sg.EulerMaruyama(4), observables=[passage], rng=0, progress=False,
    )  # fmt: skip
    survival = float(run.observables["first_passage"].survival[-1])
    # half of them never pass; of the others 2 Φ(1/(0.5·2)) − 1 = 0.6827 do not
    expected = 0.5 + 0.5 * 0.682689
    assert abs(survival - expected) < 4.42 * (0.25 / 4000) ** 0.5


def test_parameters_of_another_number_are_refused():
    sde = sg.ItoProcess(lambda x, k: -k * x, 0.0, parameters={"k": torch.ones(5, 1)})
    message = r"parameters of ItoProcess have 5 rows for 3 trajectories"
    with pytest.raises(ValueError, match=message):
        sg.simulate(sde, torch.ones(3, 1), [0.0, 0.1])
    with pytest.raises(ValueError, match=message):
        sg.run_ensemble(
            sde, torch.ones(1, 1), [0.0, 0.1], trajectories=3, observables=[sg.Moments()]
        )


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        (torch.ones(3), TypeError, "must be a mapping of names to tensors"),
        ({"k": "a"}, TypeError, r"parameters\['k'\] must be a tensor or an array"),
        ({"k": 1.0}, ValueError, r"one row for each trajectory, shape \(trajectories"),
        ({"t": torch.ones(3)}, ValueError, "the name of the state or the time"),
        ({}, ValueError, "no entry"),
        ({"k": torch.ones(3, 1), "l": torch.ones(2, 1)}, ValueError, "'k': 3, 'l': 2"),
        (
            {"k": torch.ones(3, 1), "l": torch.ones(3, 1)},
            ValueError,
            "parameters has 'l', but neither",
        ),
    ],
)
def test_what_are_no_parameters_is_refused(parameters, kind, message, as_user):
    with pytest.raises(kind, match=message):
        sg.ItoProcess(lambda x, k: -k * x, 0.0, parameters=parameters)


# --- the place of a trajectory in the batch


@pytest.mark.parametrize("alike", [1, 60_000])
@pytest.mark.parametrize("n", [3, 1000, N])
def test_a_parameter_cut_by_hand_is_refused_at_any_number(n, alike):
    # the second block would get the parameters of the first
    k = _rates()[: N // alike + 1].repeat_interleave(alike, 0)
    if n <= alike > 1:
        k = k[alike - n // 2 :]
    by_hand = sg.ItoProcess(lambda x: -k[: len(x)] * x, 0.0)
    with pytest.raises(ValueError, match=r"place of a trajectory in the batch.*parameters="):
        _ends(by_hand, n)
    noisy = sg.ItoProcess(lambda x: -x, lambda x: k[: len(x)] + 0 * x)
    with pytest.raises(ValueError, match=r"diffusion depends on the place .*parameters="):
        _ends(noisy, n, rng=0)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("d", [2, 3, 4])
def test_a_noise_matrix_is_refused_at_any_number_of_trajectories(batch, d):
    matrix = torch.eye(d, dtype=F64) + 0.5 * torch.ones(d, d, dtype=F64).tril()
    for noise in (None, "additive"):
        sde = sg.ItoProcess(lambda x: 0 * x, lambda x, t: matrix, noise=noise)
        with pytest.raises(ValueError, match="noise matrix is declared"):
            sg.simulate(sde, torch.zeros(batch, d, dtype=F64), [0.0, 1.0], rng=0)
        with pytest.raises(ValueError, match="noise matrix is declared"):
            sg.simulate(sde, torch.zeros(batch, d, dtype=F64), [0.0, 1.0], rng=0, interacting=True)
        with pytest.raises(ValueError, match="noise matrix is declared"):
            sg.run_ensemble(
                sde, torch.zeros(1, d, dtype=F64), [0.0, 1.0], trajectories=batch,
                observables=[sg.Moments()], rng=0, progress=False,
            )  # fmt: skip


@pytest.mark.parametrize(
    ("drift", "diffusion"),
    [
        (lambda x: torch.ones(2, 2).tril().to(x) @ x, 1.0),  # A x of one state, not of a batch
        (lambda x: x - x[0], 1.0),
        (lambda x: -x, lambda x: x[:, 0]),  # shape (batch,) meets the coordinates
    ],
)
def test_what_fits_a_batch_of_d_by_accident_is_refused(drift, diffusion):
    with pytest.raises(ValueError, match=r"parameters=|noise matrix"):
        sg.simulate(
            sg.ItoProcess(drift, diffusion), torch.tensor([[1.0, 2.0], [3.0, 5.0]]), [0.0, 0.1]
        )


def test_a_scale_for_each_coordinate_is_no_accident():
    scales = torch.tensor([1.0, 3.0], dtype=F64)
    sde = sg.ItoProcess(lambda x: 0 * x, lambda x, t: scales, noise="additive")
    two = sg.simulate(sde, torch.zeros(2, 2, dtype=F64), [0.0, 1.0], rng=0).final
    assert bool((two != 0).all())


def test_a_mean_field_is_no_matter_of_place():
    field = sg.ItoProcess(lambda x: x.mean(0) - x, 0.0)
    x0 = torch.tensor([[0.0], [1.0]], dtype=F64)
    found = sg.simulate(field, x0, [0.0, 0.5]).final
    torch.testing.assert_close(found, torch.tensor([[0.25], [0.75]], dtype=F64))
