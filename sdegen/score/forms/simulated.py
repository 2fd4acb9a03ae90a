"""The form of a process without a kernel: its paths are simulated.

    score = b(x, t) + output((x − mean_t)/std_t, t)/std_t

mean_t and std_t, of each coordinate of p_t, come of a pilot simulation. b is a *base*, a score
that is known and near: far out, where there are no data, the network says nothing, and the base
keeps the reversed process from exploding. Where nothing is said and the SDE does not depend on
time, it is the score at which no current flows,

    b = (G Gᵀ)⁻¹ (2 f − ∇·(G Gᵀ))

the stationary one in one coordinate and of every drift that is the gradient of a potential; of
other drifts it is a start: base=0 leaves it out, where the network shall be all of the score. The
prior is the simulated law at t_max.

**Times.** Where none are given, training finds them (`forms.noising`): t_max when p_t is within
0.01 nats of the law at rest. Where they are given, and the process does not change in time, KL of
p_T from p_2T, of other paths, tells whether p_T still remembers the data, which is warned of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NoReturn

import torch
from torch import Tensor

from sdegen.core.noise import Rng, stream
from sdegen.core.requests import as_time, check_function
from sdegen.core.scores import ScoreAt
from sdegen.core.sde import SDE
from sdegen.core.shapes import ScoreFn, State, Time
from sdegen.diffusion.priors import SamplePrior
from sdegen.score.forms.advice import Gap, note_prior
from sdegen.score.forms.base import Form, as_states, ask, cast_like
from sdegen.score.forms.noising import diverged, forgotten, noising_times
from sdegen.score.forms.tables import MomentTables
from sdegen.score.parameterization import Estimates, Parameterization, ScorePrediction
from sdegen.score.paths import path_nodes, simulate_paths
from sdegen.score.targets.choice import check_simulable, rate_of
from sdegen.score.targets.frames import frame_of
from sdegen.score.targets.one_step import OneStepKernel

if TYPE_CHECKING:
    from sdegen.score.model import ScoreModel

_PATHS, _READS = 8192, 64
_STEP, _MOST = 0.02, 0.01  # of 1/|∇f|, and of t_max


def no_base(x_t: State, t: Time) -> State:
    """Return 0, the base of a network that is the whole score."""
    return torch.zeros_like(x_t)


class SimulatedForm(Form):
    """The form of a process without a kernel.

    Args:
        sde: The process.
        base: A score that the network's output is added to; None: the one of this page; 0: none.
    """

    def __init__(self, sde: SDE, base: ScoreFn | Literal[0] | None = None) -> None:
        check_simulable(sde, "ScoreModel")
        self.sde: SDE = sde
        self.base: ScoreFn | None = _as_score(base)

    def default(self) -> Parameterization:
        """Return `ScorePrediction()`."""
        return ScorePrediction()

    def check(self, parameterization: Parameterization) -> None:
        """Refuse what needs α and σ."""
        if type(parameterization) is not ScorePrediction:
            raise ValueError(
                f"{type(parameterization).__name__} reads a network by α(t) and σ(t), which "
                f"{type(self.sde).__name__}, without a Gaussian kernel, has not; leave it out, or "
                "pass ScorePrediction()."
            )

    def times(self) -> tuple[float, float] | None:
        """Return nothing: the process says none."""
        return None

    def output(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return the raw output of the network."""
        return self._asked(model, as_states(x_t), as_time(t))[0]

    def score(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Return b + output/std_t."""
        x_t, t = as_states(x_t), as_time(t)
        output, std = self._asked(model, x_t, t)
        return self.base_score(model, x_t, t) + output / std

    def base_score(self, model: ScoreModel, x_t: State, t: Time) -> State:
        """Return b, same shape as x_t."""
        if self.base is not None:
            return self.base(x_t, t)
        if not self.sde.autonomous:
            return torch.zeros_like(x_t)
        rest = 2 * self.sde.drift(x_t, t)
        if self.sde.noise == "multiplicative":
            rest = rest - self.sde.covariance_divergence(x_t, t)
        frame = frame_of(self.sde, x_t, t)
        return frame.inverse_transposed_times(frame.inverse_times(rest))

    def estimates(self, model: ScoreModel, x_t: State, t: Time | float) -> Estimates:
        """Refuse: x0 and ε are those of a Gaussian kernel."""
        self._refuse("x0 and ε")

    def v(self, model: ScoreModel, x_t: State, t: Time | float) -> State:
        """Refuse: v is that of α and σ."""
        self._refuse("v")

    def precompute(self, model: ScoreModel, times: Tensor) -> ScoreAt:
        """Return at(x_t, i) = score(x_t, times[i])."""
        ts = times.unbind()
        return lambda x_t, i: self.score(model, x_t, ts[i])

    def prepare(self, model: ScoreModel, data: State) -> None:
        """Simulate a pilot of the data: mean, standard deviation and end of p_t; find times."""
        source = stream(0, "pilot of a score")
        some = torch.randint(len(data), (_PATHS,), generator=source.generator())
        parameter = next(model.network.parameters(), data)
        x0 = cast_like(parameter, data[some.to(data.device)])
        found = model.times is None
        if found:
            model.chosen_times = noising_times(self.sde, cast_like(parameter, data))
        assert model.times is not None
        low, high = model.times
        zero = torch.zeros((), dtype=torch.float64)
        target, reads = OneStepKernel(), torch.linspace(0, 1, _READS, dtype=torch.float64)
        slope = rate_of(self.sde, x0, zero)
        rate = max(slope, 1 / high)
        step = min(_STEP / rate, _MOST * high)
        nodes = path_nodes(low, high, step, 0.0)
        when = low + (high - low) * reads.square()
        seen = simulate_paths(self.sde, target, x0, nodes, when, source)
        if not bool(seen.x.isfinite().all()):
            raise diverged(self.sde, step)
        t = torch.cat([zero[None], seen.t])
        distinct = torch.cat([t.new_ones(1, dtype=torch.bool), t[1:] > t[:-1]])
        states = torch.cat([x0[None], seen.x])
        model.tables = MomentTables.of(t[distinct], states[distinct.to(states.device)])
        kl = 0.0
        if not found and self.sde.autonomous is True and slope > 0:  # else nothing rests
            kl = forgotten(self.sde, states[-1], high, step, source.child("beyond"))
        cure = "Noise for longer, or leave times out, and training finds them."
        note_prior(model, Gap(kl, kl), x0[0].numel(), cure, told=False)

    def is_prepared(self, model: ScoreModel) -> bool:
        """Return whether there are tables."""
        return model.tables is not None

    def prepare_at(self, model: ScoreModel, rows: State, t: Tensor) -> None:
        """Take mean, standard deviation and end of p_t from samples of it at times t."""
        low, high = float(t.min()), float(t.max())
        if model.times is None:
            model.chosen_times = (low, high) if low < high else None
        parameter = next(model.network.parameters(), rows)
        model.tables = MomentTables.of_samples(t, cast_like(parameter, rows.detach()))

    def tensors(self, model: ScoreModel) -> dict[str, Tensor]:
        """Return what is kept beside the weights: the tables."""
        return {} if model.tables is None else dict(model.tables.state_dict())

    def restore(self, model: ScoreModel, tensors: dict[str, Tensor]) -> None:
        """Take the tables back."""
        if tensors:
            model.tables = MomentTables(*(tensors[n] for n in ("times", "means", "stds", "ends")))

    def noised(self, model: ScoreModel, x0: State, t: Tensor, eps: State) -> State:
        """Refuse: there is no kernel to draw from."""
        self._refuse("a draw of x_t from x0")

    def error(
        self, model: ScoreModel, x0: State, t: Tensor, eps: State, *, in_output: bool
    ) -> State:
        """Refuse: there is no ε."""
        self._refuse("ε")

    def prior(
        self, model: ScoreModel, n: int, rng: Rng, dtype: torch.dtype | None, device: torch.device
    ) -> State:
        """Draw from the simulated states at t_max."""
        ends = self._tables(model).ends
        return SamplePrior(ends).sample(n, rng=rng, dtype=dtype or ends.dtype, device=device)

    def _asked(self, model: ScoreModel, x_t: State, t: Time) -> tuple[State, Tensor]:
        """Return the output of the network and std_t."""
        mean, std = self._tables(model).at(x_t, t)
        like = next(model.network.parameters(), x_t)
        return ask(model.network, x_t - mean, std, t, like), std

    def _tables(self, model: ScoreModel) -> MomentTables:
        """Return the tables, or say that there are none yet."""
        if model.tables is None:
            raise ValueError(
                "this model has no score yet: the mean and width of p_t come of its training, "
                "train(model, data)."
            )
        assert isinstance(model.tables, MomentTables)
        return model.tables

    def _refuse(self, what: str) -> NoReturn:
        """Refuse what needs a Gaussian kernel."""
        raise ValueError(
            f"{what} needs a Gaussian kernel, which {type(self.sde).__name__} has not; its score "
            "is learned by TransitionMatching(), and is what model.score returns."
        )


def _as_score(base: ScoreFn | Literal[0] | None) -> ScoreFn | None:
    """Return a base as a function, or refuse what is none."""
    if base is None or callable(base):
        return base
    if not isinstance(base, int | float) or isinstance(base, bool) or base != 0:
        check_function("base", base, "a function (x, t) -> a score, or 0 for none")
    return no_base
