"""Pretraining, stage 1, with the figures of the reference's code: images of 224 px against the bank `obj` (spec §4).

What differs from paper and reference, and why: docs/recipes.md.
"""

from ml_collections import ConfigDict

from ove.config.recipe import parse
from ove.encoder.presets import PRESETS

SAMPLES = 13_000_000_000  # of the whole stage (paper)
DEVICES = 128
ON_DEVICE, ACCUMULATE = 16, 4  # samples of a microbatch on each device, and microbatches (reference)


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: words with commas between them: a size (base, large or huge; large if there is none), devices=N, smoke."""
    asked = parse(arg, devices=DEVICES)
    size = PRESETS[asked.size]
    c = ConfigDict()
    batch = ON_DEVICE * ACCUMULATE * asked.devices

    c.batches = ConfigDict()
    c.batches.shards = "data/shards/images"
    c.batches.num_workers = 8
    c.batches.heads = [  # 8 of the 10 labels in each step (reference)
        {"bank": "obj", "batch_size": batch, "negatives": 0.1, "labels_per_step": 8, "size_px": 224},
    ]

    c.centers = ConfigDict()
    c.centers.loss = "margin_softmax"  # margin 0.3, filter 0.75, scale 64 (reference)

    c.encoder = ConfigDict()  # spec §1
    c.encoder.layers = size.layers
    c.encoder.width = size.width
    c.encoder.heads = size.heads
    c.encoder.mlp = size.mlp
    c.encoder.rope = "released"  # spec §1
    c.encoder.compute = "bfloat16"
    c.encoder.remat = "full"  # least memory, a quarter more time (docs/scaling.md)

    c.mesh = ConfigDict()
    c.mesh.fsdp = 1  # 8, say: parameters and moments cut over 8 neighbouring devices

    c.train = ConfigDict()
    c.train.steps = SAMPLES // batch
    c.train.lr = 5e-5  # reference
    c.train.lr_bank = 5e-5
    c.train.weight_decay = 0.05  # reference
    c.train.schedule = "linear"
    c.train.warmup_steps = 2_000
    c.train.clip_norm = 5.0  # reference
    c.train.grad_accum_steps = ACCUMULATE
    c.train.log_every = 50
    c.train.save_every = 1_000

    if asked.smoke:  # on the shards of launch/quickstart.sh, with a tiny encoder: does everything run?
        c.batches.shards = "runs/quickstart/shards/train"
        c.batches.num_workers = 0
        c.batches.heads = [{"bank": "obj", "batch_size": 16, "negatives": 0.5, "labels_per_step": 2}]
        c.encoder.update(layers=2, width=192, heads=3, mlp=768, init_std=0.07, compute="float32")
        c.train.update(steps=20, grad_accum_steps=2, lr=3e-4, lr_bank=2e-3, warmup_steps=4, log_every=5, save_every=10)
    return c
