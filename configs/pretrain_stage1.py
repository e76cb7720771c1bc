"""Pretraining, stage 1, with the paper's figures: images of 224 px against the bank `obj` (spec §4).

What differs from paper and reference, and why: docs/recipes.md.
"""

from ml_collections import ConfigDict

from ove.config.recipe import parse
from ove.encoder.presets import PRESETS

SAMPLES = 13_000_000_000  # of the whole stage (paper)
BATCH = 32_768  # over all devices; ours, the paper names none


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: words with commas between them: a size (base, large or huge; large if there is none), smoke."""
    asked = parse(arg)
    size = PRESETS[asked.size]
    c = ConfigDict()

    c.batches = ConfigDict()
    c.batches.shards = "data/shards/images"
    c.batches.num_workers = 8
    c.batches.heads = [
        # r = 0.1 of 2,000,000 centers, all 10 labels in each step (paper)
        {"bank": "obj", "batch_size": BATCH, "negatives": 0.1, "labels_per_step": 10, "size_px": 224},
    ]

    c.encoder = ConfigDict()  # spec §1
    c.encoder.layers = size.layers
    c.encoder.width = size.width
    c.encoder.heads = size.heads
    c.encoder.mlp = size.mlp
    c.encoder.compute = "bfloat16"
    c.encoder.remat = "full"  # least memory, a quarter more time (docs/scaling.md)

    c.mesh = ConfigDict()
    c.mesh.fsdp = 1  # 8, say: parameters and moments cut over 8 neighbouring devices

    c.train = ConfigDict()
    c.train.steps = SAMPLES // BATCH
    c.train.lr = 1e-3  # paper
    c.train.lr_bank = 1e-3  # paper: one rate for all
    c.train.weight_decay = 0.2  # paper
    c.train.schedule = "linear"  # to 0
    c.train.warmup_steps = 2_000
    c.train.clip_norm = 5.0  # of the encoder, and of each bank (spec §4)
    c.train.grad_accum_steps = 1  # more where the samples of a device do not fit at once; the losses stay the same
    c.train.log_every = 50
    c.train.save_every = 1_000

    if asked.smoke:  # on the shards of launch/quickstart.sh, with a tiny encoder: does everything run?
        c.batches.shards = "runs/quickstart/shards/train"
        c.batches.num_workers = 0
        c.batches.heads = [{"bank": "obj", "batch_size": 16, "negatives": 0.5, "labels_per_step": 2}]
        c.encoder.update(layers=2, width=192, heads=3, mlp=768, init_std=0.07, compute="float32")
        c.train.update(steps=20, warmup_steps=4, log_every=5, save_every=10)
    return c
