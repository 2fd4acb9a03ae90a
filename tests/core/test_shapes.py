"""One coefficient for each trajectory meets its own trajectory, whatever the event's shape."""

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from shape_checker import checked

import sdegen as sg
from sdegen.core.shapes import expand


@pytest.mark.parametrize("event", [(), (1,), (2,), (3, 2), (2, 2, 2)])
def test_each_trajectory_meets_its_own_coefficient(event, device, dtype):
    # batch == the last axis of the event: plain broadcasting would pair coefficients with
    # coordinates
    x = torch.ones(2, *event, device=device, dtype=dtype)
    c = torch.tensor([3.0, 5.0], device=device, dtype=dtype)
    product = expand(c, x) * x
    assert torch.equal(product[0], torch.full_like(x[0], 3.0))
    assert torch.equal(product[1], torch.full_like(x[1], 5.0))


def test_a_number_is_left_as_it_is():
    c = torch.tensor(0.1, dtype=torch.float64)
    assert expand(c, torch.ones(2, 2, dtype=torch.float32)) is c


def test_a_coefficient_for_each_takes_the_dtype_of_the_state():
    x = torch.ones(2, 2, dtype=torch.float32)
    c = torch.tensor([0.1, 0.2], dtype=torch.float64)
    assert (expand(c, x) * x).dtype == torch.float32


@pytest.mark.parametrize("shape", [(3,), (2, 1), (1,), (1, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"must have shape \(\) or \(2,\) to meet a state of shape"
    ):
        expand(torch.ones(shape), torch.ones(2, 2))


def test_the_suite_checks_shapes():
    # a hook that is taken away before a module is loaded checks nothing
    one = torch.tensor(1.0)
    with pytest.raises(jaxtyping.TypeCheckError, match="drift"):
        sg.update(torch.zeros(3, 1), torch.zeros(2, 1), one)


Batch = Float[torch.Tensor, "batch dim"]


def test_what_the_suite_checks():
    """Arguments by place and by name, results, unions, tuples; names agree in a call only."""

    def made(result):
        def f(x: Batch, y: Batch | None = None) -> tuple[Batch, Float[torch.Tensor, ""]]:
            return result

        return checked(f)

    x, total = torch.zeros(3, 2), torch.tensor(0.0)
    f = made((x, total))
    assert f(x) == f(x, y=x) == f(x, None) == (x, total)
    for args, words, told in (
        ((x[0],), {}, r"x=torch.float32\[2\], but it is signed"),
        ((x, x.T), {}, r"y=torch.float32\[2, 3\]"),
        ((x,), {"y": x.long()}, "y=torch.int64"),
        ((x.repeat(2, 1),), {}, r"its result \(torch.float32\[3, 2\], torch.float32\[\]\)"),
    ):
        with pytest.raises(jaxtyping.TypeCheckError, match=told):
            f(*args, **words)
    for result in (x, (x,), (x, 0.0), (total, x)):  # closures of one code, each with its own
        with pytest.raises(jaxtyping.TypeCheckError, match="its result "):
            made(result)(x)
