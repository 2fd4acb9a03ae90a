"""Losses of scores: which noise levels they dwell on, and how an error is counted."""

from sdegen.score.losses.denoising import DenoisingLoss as DenoisingLoss
from sdegen.score.losses.denoising import denoising_error as denoising_error
from sdegen.score.losses.hybrid import HybridLoss as HybridLoss
from sdegen.score.losses.implicit import ImplicitLoss as ImplicitLoss
from sdegen.score.losses.implicit import SlicedLoss as SlicedLoss
from sdegen.score.losses.stable import StableTargetLoss as StableTargetLoss
from sdegen.score.losses.times import TimeSampler as TimeSampler
