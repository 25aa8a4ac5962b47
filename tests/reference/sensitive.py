"""How much the collision loss of a golden case changes with errors of its trajectories: for its bound in `tests/golden.rs`.

    python tests/reference/sensitive.py [ERROR] [CASE] [DRAWS]

Adds normally distributed noise of that relative size, |noise| / |trajectories|, to the trajectories of the case in evaluation mode, and prints
the median and the largest relative change of the loss. All is in float64, with the parameters and the batch of the golden file (seed 1).
"""
import sys

import torch

import golden
from batches import random_batch, random_parameters
from pluto_reference import Config, forward, objectives
from shapes import parameter_shapes

if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    error, case, draws = float((sys.argv[1:2] or ["6.9e-7"])[0]), (sys.argv[2:3] or ["small"])[0], int((sys.argv[3:4] or ["200"])[0])
    options, size, losses = golden.CASES[case]
    cfg = Config(**options)
    params = random_parameters(parameter_shapes(cfg), 1)
    batch = random_batch(cfg, 2, **size)
    with torch.no_grad():
        out, _ = forward(params, batch, cfg, train=False)
        loss = lambda: float(objectives(out, batch, cfg, False, **losses)["collision_loss"])
        exact, trajectory, generator = loss(), out["trajectory"], torch.Generator().manual_seed(1)
        changes = []
        for _ in range(draws):
            noise = torch.randn(trajectory.shape, generator=generator)
            out["trajectory"] = trajectory + noise * (error * trajectory.norm() / noise.norm())
            changes.append(abs(loss() / exact - 1))
    changes.sort()
    print(f"{case}: trajectories {error:.1e}, collision loss {exact:.6f}: median change {changes[len(changes) // 2]:.1e}, largest {changes[-1]:.1e}")
