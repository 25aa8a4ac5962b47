"""How far PyTorch is from itself where the operands of every matrix product are rounded to tf32 or bfloat16: for the bounds of
`tests/golden.rs`, which are twice these errors.

    python tests/reference/rounded.py [CASE] [SEED ...]

Prints for each seed the error of the whole gradient and the largest errors of other arrays, as |a - b| / |b|. All else is in float64.
"""
import sys

import torch
from torch.utils._python_dispatch import TorchDispatchMode

import golden

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


def errors(exact, rounded):
    """Error of the whole gradient, and of every other result by name."""
    square = {name: (exact[name].double() - rounded[name].double()).square().sum().item() for name in exact}
    size = {name: exact[name].double().square().sum().item() for name in exact}
    gradient = [name for name in exact if name.startswith("train/grad/")]
    whole = sum(square[name] for name in gradient) / sum(size[name] for name in gradient)
    others = [name for name in exact if not name.startswith(("train/grad/", "param/", "batch/", "fit/param"))]
    return whole**0.5, {name: (square[name] / (size[name] or 1.0)) ** 0.5 for name in others}


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    case, seeds = (sys.argv[1:2] or ["small"])[0], [int(seed) for seed in sys.argv[2:]] or [1]
    for seed in seeds:
        exact, _ = golden.run(case, seed)
        for precision, bits in BITS.items():
            with Rounded(bits):
                rounded, _ = golden.run(case, seed)
            whole, others = errors(exact, rounded)
            worst = sorted(others.items(), key=lambda item: -item[1])[:6]
            print(f"{case} {seed} {precision}: whole gradient {whole:.1e},", ", ".join(f"{name} {error:.1e}" for name, error in worst))
