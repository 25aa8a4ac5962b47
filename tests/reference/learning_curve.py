"""Trains the reference on scenarios that tests/learning_curves.rs exported, and prints losses of every step as JSON.

    learning_curve.py FOLDER [--swap] [--threads N]

FOLDER holds `settings.json`, `scenarios.safetensors` (arrays by `INDEX/GROUP/NAME`, not padded) and `initial.safetensors`. With
--swap every batch is taken in reverse order: the same sums in another order, which shows how far PyTorch is from itself. With
`negative_valid` in the settings batches are triplets: anchors, positives, negatives.
"""
import argparse, json, pathlib
import torch
from safetensors.torch import load_file
from golden import clip_gradients, learnable
from pluto_reference import Config, forward, no_decay, objectives, warmup_cosine


def pad(parts):
    """Stacks arrays after padding every axis with zeros (false) to the longest."""
    longest = [max(sizes) for sizes in zip(*(x.shape for x in parts))]
    out = parts[0].new_zeros(len(parts), *longest)
    for row, x in zip(out, parts):
        row[tuple(slice(0, n) for n in x.shape)] = x
    return out


def read_scenarios(path):
    scenarios = {}
    for name, x in load_file(path).items():
        index, *groups, leaf = name.split("/")
        at = scenarios.setdefault(int(index), {})
        for group in groups:
            at = at.setdefault(group, {})
        at[leaf] = x.bool() if x.dtype == torch.uint8 else x.double() if x.is_floating_point() else x
    return scenarios


def stack(scenarios):
    first = scenarios[0]
    return {k: stack([s[k] for s in scenarios]) if isinstance(v, dict) else pad([s[k] for s in scenarios]) for k, v in first.items()}


def train(folder, swap):
    settings = json.loads((folder / "settings.json").read_text())
    scenarios = read_scenarios(folder / "scenarios.safetensors")
    cfg = Config(**settings["model"])
    params = {k: v.double().requires_grad_(learnable(k)) for k, v in load_file(folder / "initial.safetensors").items()}
    trained = {k: v for k, v in params.items() if learnable(k)}
    groups = [dict(params=[v for k, v in trained.items() if not no_decay(k, v)], weight_decay=settings["weight_decay"]),
              dict(params=[v for k, v in trained.items() if no_decay(k, v)], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"])
    triplets = settings.get("negative_valid")
    curves = {"loss": [], "contrastive_loss": []}
    for step, indexes in enumerate(settings["batches"]):
        batch = stack([scenarios[i] for i in (reversed(indexes) if swap else indexes)])
        if triplets:
            batch["data_n_valid_mask"] = torch.tensor(triplets[step])
        epoch = step // settings["steps_per_epoch"]
        for g in optimizer.param_groups:
            g["lr"] = warmup_cosine(epoch, settings["lr"], settings["epochs"], settings["warmup_epochs"])
        optimizer.zero_grad()
        out, stats = forward(params, batch, cfg, train=True)
        losses = objectives(out, batch, cfg, True, use_contrast_loss=triplets is not None)
        losses["loss"].backward()
        clip_gradients(trained.values(), settings["gradient_clip_val"])
        optimizer.step()
        params.update(stats)
        for name, curve in curves.items():
            curve.append(losses[name].item())
    return curves


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--swap", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(args.threads)
    print(json.dumps(train(args.folder, args.swap)))
