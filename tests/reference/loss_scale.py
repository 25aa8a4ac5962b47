"""What torch.amp.GradScaler does in steps of AdamW of which some overflow: prints `tests/data/loss_scale.json`.

    python loss_scale.py

A layer y = x Wᵀ whose operands are in half precision in both passes, and sums in single precision. Targets are so far that the loss's gradient
is ± scale / rows: from 2^19 on that is infinite in half precision.
"""
import json
import torch

ROWS, IN, OUT, STEPS = 5, 4, 3, 16


class Product(torch.autograd.Function):
    @staticmethod
    def forward(context, x, w):
        x, w = x.half().float(), w.half().float()
        context.save_for_backward(x)
        return x @ w.T

    @staticmethod
    def backward(context, dy):
        x, = context.saved_tensors
        return None, dy.half().float().T @ x


def numbers(rows, columns, step):
    return torch.tensor([[((7 * (columns * i + j) + 5 * step) % 13 - 6) / 16 for j in range(columns)] for i in range(rows)])


w = torch.nn.Parameter(numbers(OUT, IN, 0))
optimizer = torch.optim.AdamW([w], lr=0.01, weight_decay=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**21, growth_interval=3)
start, steps = scaler.state_dict(), []
for step in range(STEPS):
    optimizer.zero_grad()
    y = Product.apply(numbers(ROWS, IN, step), w)
    target = 100 * torch.sign(numbers(ROWS, OUT, step + 1) + 1 / 64)
    loss = torch.nn.functional.smooth_l1_loss(y, target, reduction="sum") / ROWS
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_([w], 0.3))
    scaler.step(optimizer)
    scaler.update()
    updates = int(optimizer.state[w]["step"]) if w in optimizer.state else 0
    steps.append({"norm": norm if norm < float("inf") else None, "updates": updates, "scaler": scaler.state_dict(),
                  "parameters": w.detach().flatten().tolist()})
print(json.dumps({"torch": torch.__version__, "scaler": start, "steps": steps}))
