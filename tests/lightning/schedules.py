"""Runs toy schedules with PyTorch Lightning: cases as JSON on standard input, what Lightning did with each on standard output.

A case names arguments of Trainer, ModelCheckpoint and EarlyStopping as YAML texts, numbers of batches, the loss of every training
step and of every validation (which the toy logs instead of computing them), and files that lie in the checkpoint folder before.
"""

import contextlib
import json
import logging
import math
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import yaml

try:
    import pytorch_lightning as pl
except ImportError:
    import lightning.pytorch as pl

pl_callbacks = pl.callbacks
torch.set_default_dtype(torch.float64)
warnings.filterwarnings("ignore")
for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)


class Memory(pl.loggers.logger.Logger):
    """Keeps what is logged."""

    name, version, save_dir = "memory", 0, None

    def __init__(self):
        super().__init__()
        self.logged = {}

    def log_metrics(self, metrics, step=None):
        for key, value in metrics.items():
            self.logged.setdefault(key, []).append([step, value])

    def log_hyperparams(self, *args, **kwargs):
        pass


class Toy(pl.LightningModule):
    """Logs the losses that it is given."""

    def __init__(self, case):
        super().__init__()
        self.case = case
        self.weight, self.bias = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
        self.validations = []

    def training_step(self, batch, index):
        losses = self.case["losses"]
        loss = self.weight.sum() * 0 + self.bias.sum() * 0 + losses[min(self.global_step, len(losses) - 1)]
        self.log("loss/train_loss", loss, on_step=True, on_epoch=True, batch_size=1)
        return loss

    def validation_step(self, batch, index):
        scores = self.case["scores"]
        score = scores[min(len(self.validations), len(scores) - 1)]
        self.log("loss/val_loss", torch.tensor(score), on_step=False, on_epoch=True, batch_size=1)

    def on_validation_end(self):
        if not self.trainer.sanity_checking:
            self.validations.append([self.current_epoch, self.global_step])

    def configure_optimizers(self):
        groups = [{"params": [self.weight], "weight_decay": 1e-4}, {"params": [self.bias], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.case["lr"])
        lr, epochs, warmup, lowest = self.case["lr"], self.case["epochs"], self.case["warmup_epochs"], 1e-6

        def factor(epoch):
            if epoch < warmup:
                return (epoch + 1) / warmup
            part = (epoch - warmup) / (epochs - warmup)
            return (lowest + 0.5 * (lr - lowest) * (1 + math.cos(math.pi * min(part, 1.0)))) / lr

        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]


def batches(count):
    return torch.utils.data.DataLoader(torch.zeros(count, 1), batch_size=1)


def run(case, folder):
    arguments = {group: {key: yaml.safe_load(value) for key, value in case[group].items()} for group in ("params", "checkpoint", "stopping")}
    folder.mkdir()
    for name in case["present"]:
        (folder / f"{name}.ckpt").touch()
    memory, toy = Memory(), Toy(case)
    callbacks = [pl_callbacks.ModelCheckpoint(dirpath=folder, **arguments["checkpoint"])]
    if not arguments["params"].get("fast_dev_run"):
        callbacks.append(pl_callbacks.LearningRateMonitor(logging_interval=case["rates"]))
    if arguments["stopping"]:
        callbacks.append(pl_callbacks.EarlyStopping(**arguments["stopping"]))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    trainer = pl.Trainer(logger=memory, callbacks=callbacks, **quiet, **arguments["params"])
    trainer.fit(toy, batches(case["train_batches"]), batches(case["val_batches"]))
    return {
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "validations": toy.validations,
        "logged": memory.logged,
        "files": sorted(path.name.removesuffix(".ckpt") for path in folder.iterdir()),
    }


with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
    results = [run(case, Path(folder) / str(i)) for i, case in enumerate(json.load(sys.stdin))]
print(json.dumps(results))
