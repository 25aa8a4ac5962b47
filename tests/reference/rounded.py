"""How far PyTorch is from itself in single precision, and where the operands of every matrix product are rounded to tf32 or bfloat16: for the
bounds of `tests/golden.rs`.

    python tests/reference/rounded.py [CASE] [DRAWS]

Where a maximum, a rectifier or the edge of a band decides, rounding makes large differences or none: one run says little. Each draw moves the
parameters of the golden case (seed 1) by 0.2 % at random. Printed are the median and the largest error over all draws, as |a - b| / |b|.
"""
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import golden
from batches import random_batch, random_parameters
from pluto_reference import Config, forward, objectives
from shapes import parameter_shapes

BITS = {"tf32": 11, "bf16": 8}
OPERANDS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "convolution": (0, 1), "convolution_backward": (0, 1, 2)}


class Rounded(TorchDispatchMode):
    """Rounds operands of products to so many bits."""

    def __init__(self, bits):
        super().__init__()
        self.scale = 2.0**bits

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        args = list(args)
        for i in OPERANDS.get(function.overloadpacket.__name__, ()):
            mantissa, exponent = torch.frexp(args[i])
            args[i] = torch.ldexp(torch.round(mantissa * self.scale) / self.scale, exponent)
        return function(*args, **(kwargs or {}))


def cast(tree, kind):
    """Numbers of a batch as `kind`."""
    if isinstance(tree, dict):
        return {name: cast(value, kind) for name, value in tree.items()}
    return tree.to(kind) if tree.is_floating_point() else tree


def results(params, batch, cfg, options, kind):
    """Outputs, losses and statistics of a training and an evaluation pass, and the gradient, by name."""
    torch.set_default_dtype(kind)
    batch = cast(batch, kind)
    leaves = {name: value.to(kind, copy=True).requires_grad_(golden.learnable(name)) for name, value in params.items()}
    out, losses, statistics = golden.total_loss(leaves, batch, cfg, options)
    losses["loss"].backward()
    with torch.no_grad():
        evaluated, _ = forward(leaves, batch, cfg, train=False)
        evaluation = objectives(evaluated, batch, cfg, False, **options)
    groups = {"train/out": out, "train/loss": losses, "train/stat": statistics, "eval/out": evaluated, "eval/loss": evaluation}
    found = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    found["gradient"] = torch.cat([value.grad.flatten() for value in leaves.values() if value.requires_grad])
    return {name: torch.as_tensor(value).detach().double() for name, value in found.items()}


if __name__ == "__main__":
    case, draws = (sys.argv[1:2] or ["small"])[0], int((sys.argv[2:3] or ["40"])[0])
    overrides, size, options = golden.CASES[case]
    torch.set_default_dtype(torch.float64)
    cfg = Config(**overrides)
    original, batch = random_parameters(parameter_shapes(cfg), 1), cast(random_batch(cfg, 2, **size), torch.float32)
    errors = {}
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        moved = {name: value * (1 + 2e-3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)) for name, value in original.items()}
        params = {name: value.float() for name, value in moved.items()}
        exact = results(params, batch, cfg, options, torch.float64)
        runs = {"single": results(params, batch, cfg, options, torch.float32)}
        for precision, bits in BITS.items():
            with Rounded(bits):
                runs[precision] = results(params, batch, cfg, options, torch.float64)
        for precision, found in runs.items():
            error = {name: float((found[name] - value).norm() / (value.norm() or 1)) for name, value in exact.items()}
            values = [value for name, value in error.items() if name != "gradient" and not name.endswith("collision_loss")]
            collision = [value for name, value in error.items() if name.endswith("collision_loss")]
            summary = {"values": max(values), "collision loss": max(collision, default=0.0), "gradient": error["gradient"]}
            for what, value in summary.items():
                errors.setdefault((precision, what), []).append(value)
    for (precision, what), all_errors in errors.items():
        all_errors.sort()
        print(f"{case} {precision}, {what}: median {all_errors[len(all_errors) // 2]:.1e}, largest {all_errors[-1]:.1e}")
