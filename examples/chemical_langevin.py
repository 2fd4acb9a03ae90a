"""A genetic switch: chemical Langevin dynamics, one noise for each reaction
=========================================================================

Two genes switch each other off: A is made at rate 8 + 42/(1 + (n_B/20)³) and decays at rate n_A, B
likewise. Reaction k changes the counts by ν_k, a_k(n) times per unit time, and in the chemical
Langevin equation (Gillespie 2000, J. Chem. Phys. 113, 297, eq. (23)) each has its own noise, dX =
Σ_k ν_k a_k(X) dt + Σ_k ν_k √a_k(X) dW_k. Below 90 molecules of each the master equation dp/dt = Q
p can be solved as it is. All start with A on. It prints, in 11 s of one core::

    t =  5, A is ahead: chemical Langevin 0.9341 ± 0.0025, master equation 0.9363
    t = 20, A is ahead: chemical Langevin 0.7393 ± 0.0044, master equation 0.7432
    t = 60, A is ahead: chemical Langevin 0.5416 ± 0.0050, master equation 0.5514
"""

import numpy as np
import torch
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import expm_multiply

import sdegen as sg

TRAJECTORIES = 10_000
STATES = 90  # of each count
NU = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]], dtype=torch.float64)


def rates(n):
    a, b = n.clamp(min=0).unbind(1)
    return torch.stack([8 + 42 / (1 + (b / 20) ** 3), a, 8 + 42 / (1 + (a / 20) ** 3), b], 1)


sde = sg.ItoProcess(lambda x: rates(x) @ NU.T, lambda x: NU * rates(x).sqrt()[:, None], channels=4)
times, x0 = torch.arange(13.0) * 5, torch.tensor([[41.0, 12.0]], dtype=torch.float64)
path = sg.simulate(sde, x0.expand(TRAJECTORIES, 2), times, solver=sg.EulerMaruyama(100), rng=0)
n, Q = np.indices((STATES, STATES)).reshape(2, -1), diags_array(np.zeros(STATES**2))
for nu, rate in zip(NU.T.int().numpy(), rates(torch.tensor(n.T)).T.numpy(), strict=True):
    to = n + nu[:, None]
    rate = rate * ((to >= 0) & (to < STATES)).all(0)
    jump = np.ravel_multi_index(to, (STATES, STATES), mode="clip"), np.arange(STATES**2)
    Q = Q + coo_array((rate, jump), shape=Q.shape) - diags_array(rate)
p = expm_multiply(Q.tocsr(), (n.T == [41, 12]).all(1) + 0.0, 0.0, 60.0, 13)
exact, x = p @ (0.5 + 0.5 * np.sign(n[0] - n[1])), path.states.numpy()
ahead = (x[..., 0] > x[..., 1]).mean(1)
error = np.sqrt(ahead * (1 - ahead) / TRAJECTORIES)
for k in (1, 4, 12):
    print(f"t = {times[k]:2.0f}, A is ahead: chemical Langevin {ahead[k]:.4f}", end=" ")
    print(f"± {error[k]:.4f}, master equation {exact[k]:.4f}")
figure, axes = sg.plots.style.panels("JR", 9.6, 4.0)
image = axes["J"].imshow(p[-1].reshape(STATES, STATES).T, origin="lower", cmap="Blues")
figure.colorbar(image, ax=axes["J"], label="master equation: probability at t = 60", pad=0.01)
axes["J"].plot(*x[-1, :400].T, ".", ms=2, color="#D55E00")
axes["J"].set(xlim=(0, 70), ylim=(0, 70), xlabel="molecules of A", ylabel="molecules of B")
axes["J"].grid(visible=False)
axes["J"].set_title("dots: 400 chemical Langevin trajectories", fontsize=9.5)
axes["R"].errorbar(times, ahead, error, fmt=".", color="#D55E00", label="chemical Langevin")
axes["R"].plot(times, exact, "k", lw=1, label="master equation")
axes["R"].set(xlabel="time t, lifetimes of a molecule", ylabel="probability that A is ahead of B")
axes["R"].legend(loc="upper right", frameon=False, fontsize=8.5)
figure.savefig("chemical_langevin.png")
