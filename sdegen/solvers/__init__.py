"""Solvers: how it moves. Each arranges calls of `update`."""

from sdegen.solvers import timesteps as timesteps  # for sg.timesteps, which is looked up here
