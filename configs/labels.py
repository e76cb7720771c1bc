"""Labels at the paper's size (spec §5): MetaCLIP H/14, no near-duplicates, 2,000,000 centers; `:smoke` for a few records."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "obj" for images, "vid" for video, "smoke"."""
    if arg not in ("", "obj", "vid", "smoke"):
        raise ValueError(f"configs/labels.py knows no argument {arg!r}; leave it out or use obj, vid or smoke")
    c = ConfigDict()
    c.labels = ConfigDict()
    c.labels.teacher = "clip"
    c.labels.weights = "weights/metaclip-h14-fullcc2.5b"  # downloaded from a hub: config.json and safetensors
    c.labels.compute = "bfloat16"
    c.labels.store = "float16"  # 2 bytes a number: 2 TB for a billion images
    c.labels.duplicates = "near"
    c.labels.threshold = 0.95
    c.labels.start = "two_level"
    c.labels.n_centers = 400_000 if arg == "vid" else 2_000_000
    c.labels.n_labels = 10
    c.labels.iterations = 4
    c.labels.scores = "bfloat16"
    if arg == "smoke":
        c.labels.teacher = "thumbnails"
        c.labels.weights = ""
        c.labels.n_centers = 2
        c.labels.n_labels = 1
    return c
