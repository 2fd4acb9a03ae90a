using StochasticDiffEq, Statistics

f(x, p, t) = x - x^3
g(x, p, t) = 0.7
problem = SDEProblem(f, g, 0.0, (0.0, 4.0))
ensemble = EnsembleProblem(problem, output_func = (solution, i) -> (solution.u[end], false))
ends = solve(ensemble, EM(), dt = 0.02, trajectories = 10_000)
answer = var(ends.u)
