"""The rooms core, sde, solvers and diffusion."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
}
NO_SHAPES: dict[str, str] = {
    "NoisingTime": "it holds numbers",
    "PriorMismatch": "it holds numbers",
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
}

TO_DO = ""
