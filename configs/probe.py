"""Probing an encoder on your own labelled clips of 224 px; name weights, train_shards and val_shards on the command line."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "smoke", which is two epochs of mode codec at half the budget."""
    if arg not in ("", "smoke"):
        raise ValueError(f"configs/probe.py knows no argument {arg!r}; leave it out or use smoke")
    c = ConfigDict()
    c.weights = ""  # a run, published weights or the name of a model on the Hugging Face hub
    c.train_shards = ""  # of `ove shards`; several folders: ["shards/a", "shards/b"]
    c.val_shards = ""
    c.probe = "attentive"
    c.modes = ("codec", "frames")
    c.budgets = (2048,)  # one patch in 8 of 64 frames of 224 px, or 8 whole frames
    c.epochs = 20
    c.batch_size = 32
    c.lr = 1e-3  # spec §6: 1e-4, for data sets of 100,000 clips
    c.lr_end = 1e-7
    c.untrained = True
    if arg == "smoke":
        c.modes, c.budgets, c.epochs, c.untrained = ("codec",), (1024,), 2, False
    return c
