import numpy as np
import pde

grid = pde.CartesianGrid([[-3, 3]], 200)
x = grid.cell_coords[:, 0]
start = pde.ScalarField(grid, np.exp(-((x + 1) ** 2) / 0.08) / np.sqrt(0.08 * np.pi))
equation = pde.PDE({"p": "-d_dx((x - x**3) * p) + 0.245 * laplace(p)"}, bc={"value": 0})
final = equation.solve(start, t_range=1.0, dt=1e-4, backend="numpy", tracker=None)
answer = (x * final.data).sum() * 6 / 200
