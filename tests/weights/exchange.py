"""The PyTorch side of tests/weights: reads what the library wrote and writes what it reads.

    exchange.py read CKPT CASE OUT       outputs of the reference with the weights of CKPT on the batch of CASE
    exchange.py lightning CKPT CASE OUT  the same file through PyTorch Lightning, which goes on training from it
    exchange.py scaled CKPT OUT          CKPT through Lightning in 16-mixed: three steps more, of which the first overflows; a checkpoint
                                         of them in the folder OUT
    exchange.py write CASE OUT           files of every kind in the folder OUT, and outputs of the reference with them
    exchange.py golden CASE OUT          the small files of tests/data/weights, for machines without PyTorch

CASE is a golden case (safetensors): its configuration and batch are used, its parameters where weights are written.
"""
import json, pathlib, sys, warnings
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from pluto_reference import Config, forward, no_decay
from shapes import parameter_shapes

torch.set_default_dtype(torch.float64)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def read_case(path):
    with safe_open(path, "pt") as file:
        meta = file.metadata()
        names = file.keys()
        batch, parameters = {}, {}
        for name in names:
            group, _, rest = name.partition("/")
            if group == "param":
                parameters[rest] = file.get_tensor(name)
            if group == "batch":
                *groups, leaf = rest.split("/")
                at = batch
                for key in groups:
                    at = at.setdefault(key, {})
                x = file.get_tensor(name)
                at[leaf] = x.bool() if x.dtype == torch.uint8 else x.double() if x.is_floating_point() else x
    return Config(**json.loads(meta["config"])), batch, parameters


def outputs(state_dict, case):
    cfg, batch, _ = case
    with torch.no_grad():
        out, _ = forward({k: v.double() for k, v in state_dict.items()}, batch, cfg, train=False)
    return {k: v.contiguous() for k, v in out.items()}


def strip(state_dict):
    assert all(name.startswith("model.") for name in state_dict)
    return {name[len("model."):]: value for name, value in state_dict.items()}


def read(ckpt, case, out):
    case = read_case(case)
    content = torch.load(ckpt, weights_only=True)
    keys = ["epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states",
            "lr_schedulers", "hyper_parameters"]
    assert all(key in content for key in keys), content.keys()
    state_dict = strip(content["state_dict"])
    expected = {k: tuple(v) for k, v in parameter_shapes(case[0]).items()}
    expected.update({k[:-len("running_var")] + "num_batches_tracked": () for k in list(expected) if k.endswith("running_var")})
    assert {k: tuple(v.shape) for k, v in state_dict.items()} == expected
    mapped = torch.load(ckpt, weights_only=True, mmap=True)["state_dict"]
    assert all(torch.equal(a, b) for a, b in zip(mapped.values(), content["state_dict"].values()))
    save_file(outputs(state_dict, case), out)


def module_of(state_dict):
    """A module whose state dict has these names and values."""
    root = torch.nn.Module()
    for name, value in state_dict.items():
        *path, leaf = name.split(".")
        at = root
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, torch.nn.Module())
            at = getattr(at, part)
        if leaf in STATISTICS:
            at.register_buffer(leaf, value.clone())
        else:
            at.register_parameter(leaf, torch.nn.Parameter(value.clone()))
    return root


def planner_class():
    import pytorch_lightning as pl

    class WarmupCosine(torch.optim.lr_scheduler.LRScheduler):
        """Takes on what its state says, as the published schedule does."""

        def __init__(self, optimizer, lr, epochs, warmup_epochs):
            self.min_lr, self.lr, self.epochs, self.warmup_epochs = 1e-6, lr, epochs, warmup_epochs
            super().__init__(optimizer)

        def load_state_dict(self, state):
            self.__dict__.update(state)

        def get_lr(self):
            return [self.lr * (self.last_epoch + 1) / 100 for _ in self.optimizer.param_groups]

    class Planner(pl.LightningModule):
        """As the published training module: the network is the attribute `model`, the optimiser has two groups sorted by name."""

        def __init__(self, model, lr=1e-3, weight_decay=1e-4, epochs=25, warmup_epochs=3, **others):
            super().__init__()
            self.save_hyperparameters(ignore=["model"])
            self.model = model

        def training_step(self, batch, index):
            return sum((p * (1 + 0.1 * i)).square().sum() for i, p in enumerate(self.model.parameters())) * batch.mean()

        def configure_optimizers(self):
            named = dict(sorted(self.model.named_parameters()))
            groups = [{"params": [p for n, p in named.items() if not no_decay(n, p)], "weight_decay": self.hparams.weight_decay},
                      {"params": [p for n, p in named.items() if no_decay(n, p)], "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, lr=self.hparams.lr)
            schedule = WarmupCosine(optimizer, self.hparams.lr, self.hparams.epochs, self.hparams.warmup_epochs)
            return [optimizer], [schedule]

    return pl, Planner


def trainer(pl, folder, **options):
    return pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
                      default_root_dir=folder, num_sanity_val_steps=0, **options)


def lightning(ckpt, case, out):
    pl, Planner = planner_class()
    case = read_case(case)
    content = torch.load(ckpt, weights_only=True)
    blank = module_of({k: torch.zeros_like(v) for k, v in strip(content["state_dict"]).items()})
    planner = Planner.load_from_checkpoint(ckpt, model=blank, map_location="cpu")
    assert planner.hparams.lr == content["hyper_parameters"]["lr"] and planner.hparams.use_collision_loss in (True, False)
    state_dict = {k: v for k, v in planner.model.state_dict().items()}
    assert all(torch.equal(v, content["state_dict"]["model." + k]) for k, v in state_dict.items())
    save_file(outputs(state_dict, case), out)
    if not content["optimizer_states"]:
        return
    # Two steps more, from where the file says.
    blank = module_of({k: torch.zeros_like(v) for k, v in state_dict.items()})
    planner = Planner(blank, lr=content["hyper_parameters"]["lr"])
    epochs = content["epoch"] + 1
    seen = {}

    class Watch(pl.Callback):
        def on_train_batch_start(self, run, module, batch, index):
            if not seen:
                optimizer, = run.optimizers
                seen.update(epoch=run.current_epoch, step=run.global_step, lr=optimizer.param_groups[0]["lr"],
                            schedule=run.lr_scheduler_configs[0].scheduler.last_epoch,
                            moments=[optimizer.state[p]["exp_avg"].clone() for g in optimizer.param_groups for p in g["params"]])

    run = trainer(pl, pathlib.Path(out).parent, max_epochs=epochs + 1, callbacks=[Watch()], enable_checkpointing=False)
    run.fit(planner, torch.utils.data.DataLoader(torch.ones(2, 1), batch_size=1), ckpt_path=ckpt)
    assert seen["epoch"] == epochs and seen["schedule"] == epochs and seen["step"] == content["global_step"], (seen, epochs)
    state = content["optimizer_states"][0]
    assert seen["lr"] == state["param_groups"][0]["lr"]
    assert all(torch.equal(m, state["state"][i]["exp_avg"].to(m.dtype)) for i, m in enumerate(seen["moments"]))
    assert run.global_step == content["global_step"] + 2


def scaled(ckpt, out):
    pl, Planner = planner_class()
    torch.set_default_dtype(torch.float32)
    content = torch.load(ckpt, weights_only=True)
    module = module_of({k: torch.zeros_like(v) for k, v in strip(content["state_dict"]).items()})
    plugin = pl.plugins.precision.MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    found = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, run, module, batch, index):
            found.append(plugin.scaler.state_dict())

    saving = pl.callbacks.ModelCheckpoint(dirpath=out, filename="scaled")
    run = trainer(pl, out, max_epochs=content["epoch"] + 2, plugins=[plugin], callbacks=[Watch(), saving])
    data = torch.tensor([[float("inf")], [1.0], [1.0]])
    run.fit(Planner(module, lr=content["hyper_parameters"]["lr"]), torch.utils.data.DataLoader(data, batch_size=1), ckpt_path=ckpt)
    assert found[0] == content["MixedPrecision"], (found[0], content["MixedPrecision"])
    content = torch.load(pathlib.Path(out) / "scaled.ckpt", weights_only=True)
    updates = int(content["optimizer_states"][0]["state"][0]["step"])
    print(json.dumps({"step": content["global_step"], "updates": updates, "scaler": content["MixedPrecision"]}))


def write(case, out):
    warnings.filterwarnings("ignore")
    out = pathlib.Path(out)
    loaded = read_case(case)
    parameters = {k: v.float() for k, v in loaded[2].items()}
    counted = dict(parameters)
    counted.update({k[:-len("running_var")] + "num_batches_tracked": torch.tensor(7) for k in parameters if k.endswith("running_var")})
    save_file(outputs(parameters, loaded), out / "outputs.safetensors")

    torch.save(counted, out / "plain.pt")
    torch.save(counted, out / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save(module_of(counted).state_dict(), out / "ordered.pt")
    torch.save(dict(module_of(counted).named_parameters()) | {k: v for k, v in counted.items() if k.endswith(STATISTICS)}, out / "parameters.pt")
    # Views: every matrix is stored transposed, and all in one storage.
    turned = {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in counted.items()}
    torch.save(turned, out / "transposed.pt")
    floats = [k for k, v in counted.items() if v.is_floating_point()]
    whole = torch.cat([counted[k].flatten() for k in floats])
    views, at = {}, 0
    for k in floats:
        views[k] = whole[at:at + counted[k].numel()].view(counted[k].shape)
        at += counted[k].numel()
    torch.save(views, out / "views.pt")
    torch.save({"state_dict": {f"backbone.{k}": v.double() for k, v in counted.items()}, "note": {"a": [1, (2.5, None)], "b": {3}}},
               out / "prefixed.pt", pickle_protocol=4)

    pl, Planner = planner_class()
    torch.set_default_dtype(torch.float32)
    planner = Planner(module_of(counted), lr=2e-3, note=Note())
    saving = pl.callbacks.ModelCheckpoint(dirpath=out, filename="lightning", every_n_epochs=1, save_top_k=-1)
    run = trainer(pl, out, max_epochs=3, callbacks=[saving])
    run.fit(planner, torch.utils.data.DataLoader(torch.ones(4, 1), batch_size=1))
    names = sorted(p.name for p in out.glob("lightning*.ckpt"))
    content = torch.load(out / names[-1], weights_only=False)
    after = strip(content["state_dict"])
    expected = {k: v for k, v in after.items() if not k.endswith("num_batches_tracked")}
    named = dict(sorted(planner.model.named_parameters()))
    order = [n for n, p in named.items() if not no_decay(n, p)] + [n for n, p in named.items() if no_decay(n, p)]
    for i, name in enumerate(order):
        for key in ("exp_avg", "exp_avg_sq"):
            expected[f"optimizer.{key}.{name}"] = content["optimizer_states"][0]["state"][i][key]
    save_file({k: v.contiguous() for k, v in expected.items()}, out / "lightning.safetensors")
    print(json.dumps({"file": names[-1], "epochs": content["epoch"] + 1, "step": content["global_step"]}))


def golden(case, out):
    """A checkpoint of a run of Lightning, with weights that compress well, and parts of it in both formats of torch.save."""
    out = pathlib.Path(out)
    loaded = read_case(case)
    pl, Planner = planner_class()
    torch.set_default_dtype(torch.float32)
    regular = {}
    for i, (k, v) in enumerate(loaded[2].items()):
        x = ((torch.arange(v.numel()) * (i % 7 + 3) % 61 - 30) / 512).view(v.shape)
        regular[k] = x.abs() + 0.5 if k.endswith("running_var") else x
    counted = regular | {k[:-len("running_var")] + "num_batches_tracked": torch.tensor(7) for k in regular if k.endswith("running_var")}
    planner = Planner(module_of(counted), lr=1e-3, note=Note())
    saving = pl.callbacks.ModelCheckpoint(dirpath=out, filename="lightning")
    run = trainer(pl, out, max_epochs=1, callbacks=[saving])
    run.fit(planner, torch.utils.data.DataLoader(torch.zeros(1, 1), batch_size=1))  # gradients of zero: the weights only decay
    content = torch.load(out / "lightning.ckpt", weights_only=False)
    state_dict = strip(content["state_dict"])
    torch.set_default_dtype(torch.float64)
    save_file(outputs(state_dict, loaded), out / "outputs.safetensors")
    small = {k: v for k, v in content["state_dict"].items() if v.numel() <= 64}
    content["state_dict"] = small
    content["optimizer_states"] = []
    torch.save(content, out / "part.ckpt")
    torch.save(content, out / "part_legacy.ckpt", _use_new_zipfile_serialization=False)


class Note:
    """An object of a class that no reader knows."""

    def __init__(self):
        self.text = "kept"


if __name__ == "__main__":
    {"read": read, "lightning": lightning, "scaled": scaled, "write": write, "golden": golden}[sys.argv[1]](*sys.argv[2:])
