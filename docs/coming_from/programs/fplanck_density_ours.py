import sdegen as sg

sde = sg.Langevin(lambda x: (x**4 / 4 - x**2 / 2).sum(-1), temperature=0.245)
grid = sg.Grid(-3.0, 3.0, cells=200)
density = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(mean=-1.0, std=0.2), [0.0, 1.0])
answer = density.final.mean
