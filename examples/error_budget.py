"""Where does the error of a sampler come from?
============================================

Data are two Gaussians on a line, an MLP learns their score, and every density on the way from the
data to the samples is computed: p_0, then early stopping at t_min, then a start from N(0, 1)
instead of the exact p at t = 1, then the learned score, then N steps in place of continuous time.
Each step of this way has its distance, and nothing is sampled. Up to 100 steps the steps cost
most; from 200 on it is the score that a better sampler needs. The score error is that of one
training, which follows the last bit of its arithmetic: other weights ended at 9.1e-03, 9.5e-03 and
1.2e-02.

Total variations; the first three are the same for all N. It prints, in 25 s of one core::

    early stopping 7.3e-03, prior mismatch 8.1e-06, score error 1.1e-02, accuracy 2.5e-06
    N =    10: time discretisation 3.2e-01, whole 3.2e-01
    N =    20: time discretisation 1.0e-01, whole 1.1e-01
    N =    50: time discretisation 2.9e-02, whole 3.4e-02
    N =   100: time discretisation 1.4e-02, whole 2.0e-02
    N =   200: time discretisation 6.9e-03, whole 1.6e-02
    N =   500: time discretisation 2.8e-03, whole 1.4e-02
    N = 1,000: time discretisation 1.4e-03, whole 1.4e-02
"""

import sdegen as sg

TRAINING = 1_500
STEPS = (10, 20, 50, 100, 200, 500, 1_000)

sde = sg.VP(sg.LinearBeta(0.1, 20.0), t_min=1e-2)
data = sg.GaussianMixture([0.3, 0.7], [-1.0, 1.0], stds=0.25)
model = sg.ScoreModel(sg.MLP(dim=1, width=64, depth=2, rng=0), sde)
sg.train(model, data.sample(20_000, rng=0), sg.TrainConfig(steps=TRAINING), rng=0)

grid = sg.Grid(-8.0, 8.0, cells=480)
law = data.noised(sde)
budgets = sg.error_budgets(sde, law, model.score, grid, [sde.time_grid(n) for n in STEPS])
early, prior, score, _ = (part.total_variation for part in budgets[10].parts)
accuracy = budgets[10].accuracy
print(
    f"early stopping {early:.1e}, prior mismatch {prior:.1e}, score error {score:.1e}, "
    f"accuracy {accuracy:.1e}"
)
for n, budget in budgets.items():
    steps, whole = budget.parts[3].total_variation, budget.whole.total_variation
    print(f"N = {n:5,}: time discretisation {steps:.1e}, whole {whole:.1e}")
sg.plots.error_budget(budgets).savefig("error_budget.png")
