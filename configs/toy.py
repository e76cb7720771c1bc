"""Pretraining on the toy videos, on a CPU: a few minutes; `:smoke` takes seconds."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "smoke"."""
    c = ConfigDict()

    c.batches = ConfigDict()
    c.batches.shards = "runs/quickstart/shards/train"
    c.batches.budget_tokens = 512  # 12.5 % of 64 × 8 × 8 patches at 112 px, the share that 2,048 is of 16,384 (spec §2)
    c.batches.heads = [
        {"bank": "vid", "batch_size": 16, "negatives": 0.5, "labels_per_step": 5},
        {"bank": "obj", "batch_size": 16, "negatives": 0.5, "labels_per_step": 5},
    ]

    # preset "tiny" of spec §1
    c.encoder = ConfigDict()
    c.encoder.layers = 4
    c.encoder.width = 192
    c.encoder.heads = 3
    c.encoder.mlp = 768

    c.train = ConfigDict()
    c.train.steps = 300
    c.train.lr = 1e-3  # stage 1 (spec §4)
    c.train.lr_bank = 1e-3
    c.train.warmup_steps = 30
    c.train.weight_decay = 0.2
    c.train.log_every = 20
    c.train.save_every = 100

    if arg == "smoke":
        c.train.steps = 6
        c.train.save_every = 3
        c.train.log_every = 1
        for head in c.batches.heads:
            head["batch_size"] = 8
    elif arg:
        raise ValueError(f"configs/toy.py knows no argument {arg!r}; leave it out or use smoke")
    return c
