"""A score trained on a file that is never read whole
==================================================

A spiral of 400,000 points is written to a .npy file, 400 times what a step needs. ``train`` maps
it into memory and reads the rows of each step alone; beside checkpoints, the folder gets a line of
JSON every few steps, read back here. It prints, in 7 s of one core::

    6.4 MB on disk, 102400 rows in 200 steps of 512
    20 lines of metrics, loss 0.9 at first and 0.4 at last
    resumed: 0 steps to take, the same losses: True
"""

import json
from pathlib import Path

import numpy as np
import torch

import sdegen as sg

ROWS = 400_000
STEPS = 200
file, folder = Path("spiral.npy"), Path("spiral")

rng = np.random.default_rng(0)
array = np.lib.format.open_memmap(file, "w+", "f8", (ROWS, 2))
for rows in np.array_split(np.arange(ROWS), 10):  # what no memory has to hold is written in parts
    angle = 3 * np.pi * rng.random(len(rows)) ** 0.5
    spiral = np.stack([np.cos(angle), np.sin(angle)], 1) * (angle / 6)[:, None]
    array[rows] = spiral + 0.05 * rng.standard_normal((len(rows), 2))
array.flush()

sde = sg.VP(sg.LinearBeta(0.1, 20.0))
model = sg.ScoreModel(sg.MLP(dim=2, width=48, depth=2, rng=0), sde)
config = sg.TrainConfig(steps=STEPS, batch_size=512, warmup=20, checkpoint_every=50)
result = sg.train(model, file, config, rng=0, folder=folder)
lines = list(map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()))
size = file.stat().st_size / 1e6
print(f"{size:.1f} MB on disk, {STEPS * 512} rows in {STEPS} steps of 512")
first, last = lines[0]["loss"], lines[-1]["loss"]
print(f"{len(lines)} lines of metrics, loss {first:.1f} at first and {last:.1f} at last")

again = sg.train(model, file, config, rng=0, folder=folder, resume=True)
left, same = STEPS - len(again.losses), torch.equal(again.losses, result.losses)
print(f"resumed: {left} steps to take, the same losses: {same}")

flow = sg.ReverseSDE(sde, model.score, 0.0)
x = sg.simulate(flow, sde.prior((2000, 2), rng=1), sde.time_grid(30), rng=2, keep_path=False)
figure, axes = sg.plots.style.panels("LD", 9.0, 4.0)
steps = [line["step"] for line in lines]
axes["L"].plot(steps, [line["loss"] for line in lines], label=f"loss: {first:.1f} to {last:.1f}")
axes["L"].plot(steps, [line["gradient_norm"] for line in lines], label="length of the gradient")
axes["L"].set(xlabel="step of training", ylabel="of metrics.jsonl", ylim=(0, None))
some = np.load(file, mmap_mode="r")[:: ROWS // 2000]
for points, name in ((some, "of the file"), (x.final, f"generated after {STEPS} steps")):
    axes["D"].plot(*points.T, ".", ms=2.5, mew=0, label=name)
axes["D"].set(xlabel="x₁", ylabel="x₂", aspect="equal", xlim=(-2.5, 2.5), ylim=(-2, 3))
for panel in axes.values():
    panel.legend(loc="upper right", frameon=False, fontsize=8.5)
figure.savefig("train_on_files.png")
