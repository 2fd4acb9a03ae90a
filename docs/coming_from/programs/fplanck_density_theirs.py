from fplanck import boundary, fokker_planck, gaussian_pdf
from scipy.constants import k

solver = fokker_planck(
    temperature=0.245 / k,
    drag=1.0,
    extent=6.0,
    resolution=0.03,
    boundary=boundary.reflecting,
    potential=lambda x: x**4 / 4 - x**2 / 2,
)
p = solver.propagate(gaussian_pdf(center=-1.0, width=0.2), 1.0)
answer = (solver.grid[0] * p).sum() / p.sum()
