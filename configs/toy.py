"""Pretraining on the toy videos, on a CPU: some four minutes of processor time; `:smoke` takes seconds."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "smoke"."""
    if arg not in ("", "smoke"):
        raise ValueError(f"configs/toy.py knows no argument {arg!r}; leave it out or use smoke")
    c = ConfigDict()

    c.batches = ConfigDict()
    c.batches.shards = "runs/quickstart/shards/train"
    c.batches.budget_tokens = 144  # 6.25 % of 64 × 6 × 6 patches: half of what the probe is given, in half the time
    c.batches.heads = [
        {"bank": "vid", "batch_size": 16, "negatives": 0.5, "labels_per_step": 2},
        {"bank": "obj", "batch_size": 8, "negatives": 0.5, "labels_per_step": 2, "weight": 0.25},
    ]

    c.centers = ConfigDict()
    c.centers.undrawn_positives = "ignore"  # else most rows are negatives: half are drawn, a quarter positives

    # preset "tiny" of spec §1, cut to two layers
    c.encoder = ConfigDict()
    c.encoder.layers = 2
    c.encoder.width = 192
    c.encoder.heads = 3
    c.encoder.mlp = 768
    c.encoder.init_std = 0.07  # about 1/√192; with 0.02 (spec §1, for width 1024) nothing is learned in so few steps

    c.train = ConfigDict()
    c.train.steps = 900
    c.train.lr = 3e-4  # with 1e-3 (stage 1, spec §4) batches of 16 learn nothing in so few steps
    c.train.lr_bank = 2e-3
    c.train.warmup_steps = 30
    c.train.weight_decay = 0.05
    c.train.log_every = 25
    c.train.save_every = 300

    if arg == "smoke":
        c.train.steps = 6
        c.train.save_every = 3
        c.train.log_every = 1
    return c
