"""Pretraining, stage 2, with the paper's figures: clips, images and text images against three banks (spec §4).

Goes on from the encoder of stage 1, or from published weights (`--config.train.init_from=DIR --config.encoder.rope=released`).
What differs from paper and reference, and why: docs/recipes.md.
"""

from ml_collections import ConfigDict

from ove.config.recipe import parse
from ove.encoder.presets import PRESETS

SAMPLES = 4_000_000_000  # of the whole stage (paper)
CLIPS, IMAGES, TEXTS = 8_192, 4_096, 4_096  # samples of a step over all devices; 1 : 1 (paper), the sizes are ours
DEVICES, ON_DEVICE = 128, 16  # clips that a device embeds at a time: docs/scaling.md has the table


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: words with commas between them: a size (base, large or huge; large if there is none), devices=N, smoke."""
    asked = parse(arg, devices=DEVICES)
    size = PRESETS[asked.size]
    c = ConfigDict()

    c.batches = ConfigDict()
    c.batches.budget_tokens = 2_048  # 12.5 % of a clip (spec §2)
    c.batches.share_codec, c.batches.share_frames, c.batches.share_tiling = 0.5, 0.375, 0.125  # spec §2
    c.batches.selection = ConfigDict()
    c.batches.selection.gop_frames = 32  # two whole frames a clip (spec §2)
    c.batches.num_workers = 8
    c.batches.heads = [  # r = 0.1 and 10 labels a step (paper); of the 100 words of a text image 10 are drawn
        {"bank": "vid", "batch_size": CLIPS, "shards": ["data/shards/clips"]},
        {"bank": "obj", "batch_size": IMAGES, "shards": ["data/shards/images"], "size_px": 448},
        {"bank": "ocr", "batch_size": TEXTS, "shards": ["data/shards/texts"], "size_px": 448},
    ]

    c.encoder = ConfigDict()  # spec §1
    c.encoder.layers = size.layers
    c.encoder.width = size.width
    c.encoder.heads = size.heads
    c.encoder.mlp = size.mlp
    c.encoder.compute = "bfloat16"
    c.encoder.remat = "none"  # nothing is computed again: microbatches keep it small (docs/scaling.md)

    c.mesh = ConfigDict()
    c.mesh.fsdp = 1  # 8, say: parameters and moments cut over 8 neighbouring devices

    c.train = ConfigDict()
    c.train.init_from = "runs/stage1"
    c.train.steps = SAMPLES // (CLIPS + IMAGES + TEXTS)
    c.train.lr = 1e-4  # paper
    c.train.lr_bank = 1e-4  # paper: one rate for all
    c.train.weight_decay = 0.2  # paper
    c.train.schedule = "linear"  # to 0
    c.train.warmup_steps = 2_000
    c.train.clip_norm = 5.0  # of the encoder, and of each bank (spec §4)
    c.train.grad_accum_steps = max(1, CLIPS // ON_DEVICE // asked.devices)  # 4 on 128 devices, 64 on 8: the same numbers
    c.train.log_every = 50
    c.train.save_every = 1_000

    if asked.smoke:  # on the shards of launch/quickstart.sh, with a tiny encoder: does everything run?
        c.batches.shards = "runs/quickstart/shards/train"
        c.batches.num_workers = 0
        c.batches.budget_tokens = 288  # 8 frames of 84 px
        c.batches.heads = [  # toy videos hold no text
            {"bank": "vid", "batch_size": 16, "negatives": 0.5, "labels_per_step": 2},
            {"bank": "obj", "batch_size": 16, "negatives": 0.5, "labels_per_step": 2},
        ]
        c.encoder.update(layers=2, width=192, heads=3, mlp=768, init_std=0.07, compute="float32")
        c.train.update(steps=20, grad_accum_steps=2, warmup_steps=4, log_every=5, save_every=10, init_from="")
    return c
