"""What PyTorch makes of the optimisers and schedules: prints the JSON that is kept in `tests/data/optimizers.json`.

    python tests/reference/optimizers.py > tests/data/optimizers.json

`tests/optimizers.rs` compares the engine with that file, and the file with a new run of this script where TE_TORCH_PYTHON names
a Python with PyTorch. Everything is in float64.
"""
import json
import math
import warnings

import torch
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, OneCycleLR

from pluto_reference import warmup_cosine

warnings.filterwarnings("ignore")
SIZE, STEPS, LR = 7, 10, 0.05


def start():
    return torch.tensor([math.cos(3 * i) for i in range(SIZE)], dtype=torch.float64, requires_grad=True)


def gradient(step):
    return torch.tensor([2 * math.sin(i + 0.7 * step) for i in range(SIZE)], dtype=torch.float64)


def run(kind, options, clip=None, batches=1):
    """Parameters after every step; `clip` is (norm or value, bound); the gradient is the mean over `batches`."""
    parameter = start()
    optimizer = kind([parameter], lr=LR, **options)
    result = []
    for step in range(STEPS):
        parameter.grad = sum(gradient(step * batches + k) for k in range(batches)) / batches
        if clip:
            clipping = {"norm": torch.nn.utils.clip_grad_norm_, "value": torch.nn.utils.clip_grad_value_}[clip[0]]
            clipping([parameter], clip[1])
        optimizer.step()
        result.append(parameter.tolist())
    return {"kind": kind.__name__, "options": options, "clip": clip, "batches": batches, "parameters": result}


def optimizers():
    adam = {"betas": [0.8, 0.95], "eps": 1e-6}
    return [
        run(Adam, adam | {"weight_decay": 0.0}),
        run(Adam, adam | {"weight_decay": 0.3}),
        run(Adam, adam | {"weight_decay": 0.3}, ("norm", 1.5)),
        run(AdamW, adam | {"weight_decay": 0.3}),
        run(AdamW, adam | {"weight_decay": 0.3}, ("value", 0.6), 3),
        run(SGD, {"momentum": 0.0, "dampening": 0.4, "nesterov": False, "weight_decay": 0.2}),
        run(SGD, {"momentum": 0.9, "dampening": 0.4, "nesterov": False, "weight_decay": 0.2}),
        run(SGD, {"momentum": 0.9, "dampening": 0.0, "nesterov": True, "weight_decay": 0.2}),
        run(SGD, {"momentum": 0.9, "dampening": 0.0, "nesterov": True, "weight_decay": 0.2}, ("norm", 0.5), 2),
    ]


class InTurn:
    """Two schedules: the first takes `steps` steps, then the second. Counted as nuPlan's SequentialLR counts."""

    def __init__(self, first, second, steps):
        self.first, self.second, self.steps, self.count = first, second, steps, 0

    def step(self):
        self.count += 1
        (self.second if self.count > self.steps else self.first).step()


def warm_up(optimizer, steps, strategy):
    def factor(step):
        if step > steps:
            return 1.0
        return step / steps if strategy == "linear" else 1 / steps

    return LambdaLR(optimizer, factor)


def rates(kind, options, main, warm, batches, epochs):
    """(learning rate, momentum) of every batch, in PyTorch Lightning's order: a schedule by batches moves where the number of
    the batch in its epoch is a multiple of the frequency, one by epochs behind the last batch. `main` is null or (name,
    options) and `warm` null or (steps, strategy)."""
    optimizer = kind([start()], lr=LR, **options)
    schedule, frequency = None, None
    if main and main[0] == "MultiStepLR":
        schedule = MultiStepLR(optimizer, **main[1])
    elif main:
        frequency = epochs
        steps = math.ceil(batches / epochs) * epochs - (warm[0] if warm else 0)
        schedule = OneCycleLR(optimizer, max_lr=LR, epochs=epochs, steps_per_epoch=math.ceil(steps / epochs), **main[1])
    if warm:
        first = warm_up(optimizer, *warm)
        schedule = InTurn(first, schedule, warm[0]) if schedule else first
    result = []
    for _ in range(epochs):
        for batch in range(batches):
            group = optimizer.param_groups[0]
            result.append([group["lr"], group["betas"][0] if "betas" in group else group["momentum"]])
            optimizer.step()
            if schedule and frequency and (batch + 1) % frequency == 0:
                schedule.step()
        if schedule and not frequency:
            schedule.step()
    name = kind.__name__
    return {"kind": name, "options": options, "main": main, "warm": warm, "batches": batches, "epochs": epochs, "rates": result}


def schedules():
    cycle = {"pct_start": 0.25, "anneal_strategy": "cos", "cycle_momentum": True, "base_momentum": 0.85,
             "max_momentum": 0.95, "div_factor": 10, "final_div_factor": 10}
    straight = cycle | {"anneal_strategy": "linear", "pct_start": 0.4, "cycle_momentum": False, "div_factor": 5}
    steps = ("MultiStepLR", {"milestones": [3, 5, 5], "gamma": 0.1})
    sgd = {"momentum": 0.9, "nesterov": True}
    return [
        rates(Adam, {}, None, None, 2, 4),
        rates(Adam, {}, ("OneCycleLR", cycle), None, 20, 4),
        rates(SGD, sgd, ("OneCycleLR", cycle), None, 23, 5),
        rates(AdamW, {}, ("OneCycleLR", straight), None, 30, 3),
        rates(Adam, {}, ("OneCycleLR", cycle), (5, "linear"), 33, 3),
        rates(SGD, sgd, ("OneCycleLR", cycle), (4, "constant"), 33, 3),
        rates(SGD, sgd, steps, None, 2, 8),
        rates(Adam, {}, steps, (2, "linear"), 2, 9),
        rates(Adam, {}, steps, (2, "constant"), 2, 9),
        rates(Adam, {}, None, (3, "linear"), 1, 6),
        rates(Adam, {}, None, (3, "constant"), 1, 6),
    ]


def cosines():
    cases = [(25, 3), (10, 0), (4, 3), (7, 6)]
    return [{"epochs": e, "warmup_epochs": w, "rates": [warmup_cosine(i, 1e-3, e, w) for i in range(e)]} for e, w in cases]


if __name__ == "__main__":
    groups = {"optimizers": optimizers(), "schedules": schedules(), "cosines": cosines()}
    lines = lambda cases: ",\n".join(json.dumps(case) for case in cases)
    print(",\n".join([f'{{"torch": "{torch.__version__.split("+")[0]}"'] +
                     [f'"{name}": [\n{lines(cases)}]' for name, cases in groups.items()]) + "}")
