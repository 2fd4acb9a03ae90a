import sdegen as sg

sde = sg.ItoProcess(lambda x: x - x**3, 0.7)
grid = sg.Grid(-3.0, 3.0, cells=200)
density = sg.FokkerPlanck(sde, grid).solve(grid.gaussian(mean=-1.0, std=0.2), [0.0, 1.0])
answer = density.final.mean
