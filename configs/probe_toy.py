"""Probing the encoder that `configs/toy.py` trained: which event happens in a toy video."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "smoke"."""
    if arg not in ("", "smoke"):
        raise ValueError(f"configs/probe_toy.py knows no argument {arg!r}; leave it out or use smoke")
    c = ConfigDict()
    c.weights = "runs/quickstart/train"
    c.train_shards = "runs/quickstart/shards/probe"
    c.val_shards = "runs/quickstart/shards/val"
    c.budgets = (288,)  # as in configs/toy.py: 8 whole frames, or the codec's choice
    c.epochs = 40
    c.batch_size = 32
    c.lr = 1e-3  # spec §6: 1e-4, for data sets a hundred times as large
    c.lr_end = 1e-7
    if arg == "smoke":
        c.epochs = 2
    return c
