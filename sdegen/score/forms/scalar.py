"""The form of a Gaussian path: α(t) and σ(t) are numbers.

network output  ──parameterization──►  (x0, ε)  ──►  score = −ε/σ,   v = α ε − σ x0
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sdegen.core.fixed_steps import to_floats
from sdegen.core.noise import Rng
from sdegen.core.requests import as_time
from sdegen.core.scores import ScoreAt
from sdegen.core.shapes import State, Time, expand
from sdegen.diffusion.gaussian_path import GaussianPath
from sdegen.score.forms.advice import (
    gap_of,
    moments_of,
    note_prior,
    some_of,
    standardise,
    warn_scale,
)
from sdegen.score.forms.base import Form, as_states, ask
from sdegen.score.learned_variance import LearnedVariance, fraction_of
from sdegen.score.parameterization import (
    EpsPrediction,
    Estimates,
    Parameterization,
    score_of,
    v_of,
)
from sdegen.score.preconditioning import EDMPrediction

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel


class ScalarForm(Form):
    """The form of a Gaussian path.

    Args:
        sde: The path.
    """

    def __init__(self, sde: GaussianPath) -> None:
        self.sde = sde

    def default(self) -> Parameterization:
        """Return `EpsPrediction()`."""
        return EpsPrediction()

    def check(self, parameterization: Parameterization) -> None:
        """Take any, but where no signal is left at t_max those alone that tell x0 there."""
        if not self.sde.ends_without_signal:
            return
        one, none = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        how, state = parameterization, one.expand(1, 1)
        told, _ = how.decode(state, state, none, one)
        other, _ = how.decode(2 * state, state, none, one)
        end = torch.tensor(self.sde.t_max, dtype=torch.float64)
        asked = (1 / how.scale(none, one), how.c_noise(end, none, one))
        known = torch.stack([told[0, 0], other[0, 0], *asked])
        if not bool(known.isfinite().all()) or float(other) == float(told):
            raise ValueError(
                f"{type(getattr(how, 'mean', how)).__name__} tells no x0 at t_max = "
                f"{self.sde.t_max:g}, where no signal is left, α = 0: take VPrediction(), "
                "X0Prediction() or FlowPrediction()."
            )

    def times(self) -> tuple[float, float]:
        """Return t_min and t_max of the path."""
        return (self.sde.t_min, self.sde.t_max)

    def output(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network."""
        return self._asked(model, x_t, t)[0]

    def score_and_fraction(
        self, model: ScoreModel, x_t: State, t: Time | float
    ) -> tuple[State, State]:
        """Return the score and where a learned variance lies, both like x_t."""
        (output, second), x_t, alpha, sigma = self._answered(model, x_t, t)
        eps = model.parameterization.eps(output, x_t, alpha, sigma)
        return score_of(eps, sigma), fraction_of(second)

    def score(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return −ε/σ."""
        output, x_t, alpha, sigma = self._asked(model, x_t, t)
        return score_of(model.parameterization.eps(output, x_t, alpha, sigma), sigma)

    def estimates(self, model: ScoreModel, x_t: State, t: Time | float) -> Estimates:
        """Return x0 and ε."""
        output, x_t, alpha, sigma = self._asked(model, x_t, t)
        return model.parameterization.decode(output, x_t, alpha, sigma)

    def v(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return α ε − σ x0."""
        output, x_t, alpha, sigma = self._asked(model, x_t, t)
        return v_of(*model.parameterization.decode(output, x_t, alpha, sigma), alpha, sigma)

    def precompute(self, model: ScoreModel, times: Tensor) -> ScoreAt:
        """Return at(x_t, i) = score(x_t, times[i]), with all that times alone decide known."""
        ts, how, sde = times.unbind(), model.parameterization, self.sde
        if not bool((times > 0).all()):
            # which says what is wrong, if asked
            return lambda x_t, i: self.score(model, x_t, ts[i])
        alpha, sigma = sde.alpha(times), sde.sigma(times)
        scales, clocks = to_floats(how.scale(alpha, sigma)), how.c_noise(times, alpha, sigma)
        network, several = model.network, how.outputs
        parameter = next(network.parameters(), None)
        values = (clocks if parameter is None else clocks.to(parameter)).unbind()
        alphas, sigmas, divisors = alpha.unbind(), sigma.unbind(), to_floats(sigma)

        def at(x_t: State, i: int) -> State:
            like = x_t if parameter is None else parameter
            output = ask(network, x_t, scales[i], values[i], like, several)
            output = output if several == 1 else output.chunk(several, 1)[0]
            return score_of(how.eps(output, x_t, alphas[i], sigmas[i]), divisors[i])

        return at

    def prepare(self, model: ScoreModel, data: State) -> None:
        """Refuse rates not of α and σ; warn of another scale, and of an unreached prior."""
        self.sde.check_rates()
        how = model.parameterization
        how = how.mean if isinstance(how, LearnedVariance) else how
        wanted = how.sigma_data if isinstance(how, EDMPrediction) else 1.0
        told = warn_scale(data, wanted, f"a network of {type(how).__name__}")
        end, prior = torch.tensor(self.sde.t_max, dtype=torch.float64), self.sde.prior_std
        alpha, sigma = float(self.sde.alpha(end)), float(self.sde.sigma(end))
        white = alpha / prior * some_of(data).flatten(1)
        found = gap_of(white[..., None], white.new_full((1, 1, 1), (sigma / prior) ** 2))
        cure = (
            f"{moments_of(data)}: {standardise(data, wanted)}, and undo it in samples, or take a "
            "path with more noise."
        )
        note_prior(model, found, white.shape[1], cure, told=told)

    def noised(self, model: ScoreModel, x0: State, t: Tensor, eps: State) -> State:
        """Return α x0 + σ ε."""
        return expand(self.sde.alpha(t), x0) * x0 + expand(self.sde.sigma(t), x0) * eps

    def error(
        self, model: ScoreModel, x0: State, t: Tensor, eps: State, *, in_output: bool
    ) -> State:
        """Return ε̂ − ε, or the error of the output."""
        alpha, sigma = expand(self.sde.alpha(t), x0), expand(self.sde.sigma(t), x0)
        how = model.parameterization
        outputs = self._answered(model, alpha * x0 + sigma * eps, t, (alpha, sigma))[0]
        error = outputs[0] - how.target(x0, eps, alpha, sigma)
        if in_output or isinstance(how, EpsPrediction):  # whose slope is 1
            return error
        return how.d_eps_d_output(alpha, sigma) * error

    def errors(
        self, model: ScoreModel, x0: State, t: Tensor, eps: State
    ) -> tuple[State, State, State]:
        """Return the errors of the output and of x̂0, and where a learned variance lies.

        Args:
            model: What is taught, by a parameterization of two outputs.
            x0: Data, shape (batch, *event).
            t: Shape (batch,), of x0's dtype and device.
            eps: Standard normals, of the state's shape.
        """
        how, x_t = model.parameterization, self.noised(model, x0, t, eps)
        (output, second), _, alpha, sigma = self._answered(model, x_t, t)
        error = output - how.target(x0, eps, alpha, sigma)
        # both estimates are linear in the output and x_t
        of_x0, _ = how.decode(error, torch.zeros_like(error), alpha, sigma)
        return error, of_x0, fraction_of(second)

    def prior(
        self, model: ScoreModel, n: int, rng: Rng, dtype: torch.dtype | None, device: torch.device
    ) -> State:
        """Draw from N(0, prior_std² I)."""
        shape = (n, *model.sample_shape())
        return self.sde.prior(shape, rng=rng, dtype=dtype, device=device)

    def kernel(self, x_t: State, t: Time) -> tuple[Tensor, Tensor]:
        """Return α(t) and σ(t), ready to multiply x_t."""
        if t.ndim:
            t = t.to(x_t.dtype)  # in float64 it would promote the state, which a 0-d t does not
        elif t.device.type == "cpu" and not float(t.detach()) > 0:
            raise ValueError(
                f"the score does not exist at t = {float(t):g}; stop at sde.t_min = "
                f"{self.sde.t_min:g}."
            )
        return expand(self.sde.alpha(t), x_t), expand(self.sde.sigma(t), x_t)

    def _asked(
        self, model: ScoreModel, x_t: State, t: Time | float
    ) -> tuple[State, State, Tensor, Tensor]:
        """Return the output of the network, the first of two; x_t, α and σ."""
        outputs, x_t, alpha, sigma = self._answered(model, x_t, t)
        return outputs[0], x_t, alpha, sigma

    def _answered(
        self,
        model: ScoreModel,
        x_t: State,
        t: Time | float,
        levels: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[tuple[Tensor, ...], State, Tensor, Tensor]:
        """Return what the network puts out, in its own precision; x_t, α and σ.

        Args:
            model: Whose network.
            x_t: States, shape (batch, *event).
            t: Shape () or (batch,).
            levels: α and σ at t, broadcastable to x_t, where they are known; None computes them.
        """
        x_t, t, how = as_states(x_t), as_time(t), model.parameterization
        alpha, sigma = self.kernel(x_t, t) if levels is None else levels
        if t.ndim:  # in the shape of t; a single number is so already
            clock = how.c_noise(t, alpha.reshape(t.shape), sigma.reshape(t.shape))
        else:
            clock = how.c_noise(t, alpha, sigma)
        like = next(model.network.parameters(), x_t)
        output = ask(model.network, x_t, how.scale(alpha, sigma), clock, like, how.outputs)
        outputs = (output,) if how.outputs == 1 else output.chunk(how.outputs, 1)
        return outputs, x_t, alpha, sigma
