"""The rooms core, sde, solvers, diffusion and plots."""

# name -> why it has none; errors, warnings and enumerations are known by their class
NO_EQUATION: dict[str, str] = {
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
    "plots.pareto": "it draws points that it is given",
    "plots.paths": "it draws states as they are",
    "plots.samples_2d": "it draws samples as they are",
    "plots.space_time": "it draws a field as it is",
}
NO_SHAPES: dict[str, str] = {
    "NoisingTime": "it holds numbers",
    "PriorMismatch": "it holds numbers",
    "Trust": "a table of words",
    "Walls": "a name of version 0.1, which says what to write in its place",
    "plots.error_budget": "budgets hold numbers",
}
