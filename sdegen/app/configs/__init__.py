"""Configs: what a command is asked to do, in plain numbers and words.

One frozen, flat dataclass for each command, in a file of its name. Its fields are the command's
flags and the keys of its config.toml; its docstring is the help. Nothing here imports torch, so
that help is instant. Only what changes the results is here: where they go is said beside it, in
`Output`. The library never sees a config; `sdegen.app.commands` turns one into calls.

An SDE, a diffusion or a data set of one's own is named `file.py:name` or `module:name`. No string
is ever evaluated.
"""
