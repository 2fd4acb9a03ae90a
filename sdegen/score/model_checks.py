"""Checks: what is asked of a network, of its labels and of a score before they are used."""

import difflib
import inspect
from pathlib import Path

import torch
from torch import Tensor, nn

from sdegen.core.errors import CheckpointError
from sdegen.core.requests import as_number, kind_of
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.core.signature import check_order
from sdegen.score.networks import condition_shape
from sdegen.score.parameterization import Parameterization

# words that others have for parameterizations
_WORDS = dict.fromkeys(("epsilon", "eps", "noise"), "EpsPrediction()") | {
    "sample": "X0Prediction()",
    "x0": "X0Prediction()",
    "v_prediction": "VPrediction()",
    "velocity": "VPrediction(), or FlowPrediction() for ε − x0",
    "score": "ScorePrediction()",
    "flow": "FlowPrediction()",
    "flow_prediction": "FlowPrediction()",
    "edm": "EDMPrediction(sigma_data)",
    "denoiser": "DenoiserPrediction()",
}
TELLS_NO_VARIANCE = (
    "this model tells no variance; make it with the parameterization LearnedVariance(), and train "
    "it by HybridLoss(steps=…)."
)


def check_derivative(score: ScoreFn, value: State, x: State, t: Time, asked_by: str) -> None:
    """Refuse a score that depends on x, but not through autograd.

    Args:
        score: ∇ log p_t(x).
        value: What it returned at x, which asked for gradients.
        x: States, shape (batch, *event).
        t: Time, shape () or (batch,).
        asked_by: What needs the derivative.

    Raises:
        ValueError: Saying what to take out of the score.
    """
    if value.requires_grad:
        return
    with torch.no_grad():
        if bool((score(x + 0.1, t) != value).any()):
            raise ValueError(
                f"score has no derivative in x, which {asked_by} needs: it depends on x, but not "
                "through autograd. Take .detach() and no_grad out of it."
            )


def check_network(network: object) -> None:
    """Refuse what is not called as network(x, t), or as network(x, t, labels) with classes.

    Raises:
        TypeError: If it is no module, takes t before x or no t, or knows classes without taking
            labels.
    """
    check_order(network, "network")
    if not isinstance(network, nn.Module):
        raise TypeError(
            f"network must be a torch.nn.Module, such as MLP(dim=2), but is {kind_of(network)}."
        )
    name, classes = type(network).__name__, getattr(network, "classes", 0)
    if isinstance(classes, bool) or not isinstance(classes, int):
        raise TypeError(
            f"network.classes says how many classes a network knows, an int, but is "
            f"{kind_of(classes)}; call it otherwise where it means something else."
        )
    if getattr(network, "condition_shape", None) is not None:
        if classes > 0 or not _takes(network, 3):
            raise TypeError(
                "network has a condition_shape and is called as network(x, t, condition), without "
                f"classes, which this {name} is not for; write forward(x, t, condition)."
            )
        return
    if not _takes(network, 2):
        raise TypeError(
            f"network is called as network(x, t), which the forward of this {name} does not take; "
            "wrap it in a module with forward(x, t)."
        )
    if classes > 0 and not _takes(network, 3):
        raise TypeError(
            f"network knows classes = {classes} and is called as network(x, t, labels), which the "
            f"forward of this {name} does not take; write forward(x, t, labels)."
        )


def _takes(network: nn.Module, count: int) -> bool:
    """Return whether a module takes so many arguments by place; True where Python cannot tell."""
    try:
        signature = inspect.signature(network.forward)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def check_labels(name: str, labels: Tensor, network: nn.Module) -> None:
    """Refuse labels that a network does not know, and conditions that are not its.

    Args:
        name: What the caller calls them.
        labels: Shape () or (n,); of conditions (*condition_shape,) or (n, *condition_shape).
        network: What is told them; `classes` says how many it knows, `condition_shape` what a
            condition is.

    Raises:
        TypeError: If they are not integers, or conditions not floats.
        ValueError: If the network knows none, or not these; or they have another shape.
    """
    if (shape := condition_shape(network)) is not None:
        _check_conditions(name, labels, shape)
        return
    classes = int(getattr(network, "classes", 0))
    if classes == 0:
        raise ValueError(
            f"{name} were given, but the {type(network).__name__} knows no classes; make it with "
            "classes=…, such as MLP(dim, classes=10)."
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, but have dtype {labels.dtype}.")
    if labels.ndim > 1 or labels.numel() == 0:
        raise ValueError(
            f"{name} must be one, or one for each row, but have shape {tuple(labels.shape)}."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name} must lie in 0 … {classes - 1}, the classes of the network, but reach from "
            f"{low} to {high}."
        )


def check_told(network: nn.Module) -> None:
    """Refuse a network that is told a condition, and has not been.

    Raises:
        ValueError: With what to do.
    """
    if (shape := condition_shape(network)) is not None:
        raise ValueError(
            f"this network is told a condition of shape {shape} for each row, and has no score "
            "without: take model.conditional(condition)."
        )


def _check_conditions(name: str, given: Tensor, shape: tuple[int | None, ...]) -> None:
    """Refuse conditions that are no finite floats of the shape that a network is told."""
    if not given.is_floating_point():
        raise TypeError(f"{name} must be floats, a condition, but have dtype {given.dtype}.")
    own = given.shape[given.ndim - len(shape) :]
    fits = all(n in (None, m) for n, m in zip(shape, own, strict=False))
    if given.ndim not in (len(shape), len(shape) + 1) or not fits or given.numel() == 0:
        expected = ", ".join("…" if n is None else str(n) for n in shape)
        raise ValueError(
            f"{name} must be one condition of shape ({expected}), or one for each row, (n, "
            f"{expected}), but have shape {tuple(given.shape)}."
        )
    if not bool(given.isfinite().all()):
        raise ValueError(f"{name} must be finite, but hold NaN or ±∞.")


def check_parameterization(given: object) -> None:
    """Refuse a word or a class for a parameterization, with the object that it stands for.

    Raises:
        TypeError: With what to pass.
    """
    if isinstance(given, Parameterization):
        return
    if isinstance(given, type):
        raise TypeError(
            f"parameterization must be an object, but is the class: pass {given.__name__}()."
        )
    if not isinstance(given, str):
        raise TypeError(f"parameterization must be one such as EpsPrediction(), but is {given!r}.")
    close = difflib.get_close_matches(given.lower(), _WORDS, n=1, cutoff=0.5)
    hint = f"did you mean {_WORDS[close[0]]}?" if close else "pass EpsPrediction(), say."
    raise TypeError(f"parameterization must be an object, but is the word {given!r}; {hint}")


def check_base(path: str | Path, had: bool, base: object) -> None:
    """Refuse to load a model without the base that it was made with, and one that it had not.

    Raises:
        CheckpointError: Saying which.
    """
    if had and base is None:
        raise CheckpointError(
            f"{path}: the network was added to a base of your own, a function that no file keeps; "
            "pass the same, load(path, base=…)."
        )
    if base is not None and not had:
        raise CheckpointError(f"{path} was made without a base; leave base out.")


def check_fit(path: str | Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Refuse weights that are not the network's, naming the first that is not.

    Args:
        path: The file that they come from.
        found: The weights in it.
        expected: Those of the network.

    Raises:
        CheckpointError: If a name or a shape differs.
    """
    for name in sorted(set(expected) | set(found)):
        there, here = (
            f"of shape {tuple(side[name].shape)}" if name in side else "missing"
            for side in (found, expected)
        )
        if there != here:
            raise CheckpointError(
                f"{path} does not fit the network: key {name!r} is {there} in the file and {here} "
                "in the network."
            )


def checked_times(
    given: object, own: tuple[float, float] | None, sde: SDE
) -> tuple[float, float] | None:
    """Return t_min and t_max of a model, or refuse them."""
    if given is None:
        return own
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"times must be a pair (t_min, t_max), but is {given!r}.")
    low, high = (as_number("times", end) for end in given)
    if not 0 < low < high < float("inf"):
        raise ValueError(f"times must be 0 < t_min < t_max, but are ({low:g}, {high:g}).")
    if own is not None and (low, high) != own:
        raise ValueError(
            f"times are those of the SDE, but {type(sde).__name__} has {own} and ({low:g}, "
            f"{high:g}) are given; leave times out, or make the SDE with them."
        )
    return (low, high)
