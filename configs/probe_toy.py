"""Probing the encoder that `configs/toy.py` trained: which event happens in a toy video."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "smoke"."""
    c = ConfigDict()
    c.workdir = "runs/quickstart/train"
    c.train_shards = "runs/quickstart/shards/train"
    c.val_shards = "runs/quickstart/shards/val"
    c.budget_tokens = 512
    c.epochs = 40
    c.batch_size = 32
    c.lr = 1e-3
    c.lr_end = 1e-5
    if arg == "smoke":
        c.epochs = 2
    elif arg:
        raise ValueError(f"configs/probe_toy.py knows no argument {arg!r}; leave it out or use smoke")
    return c
