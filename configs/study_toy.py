"""The paper's studies on the toy: of the encoder, the shards and the videos that `launch/quickstart.sh` left."""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: "" or "smoke"."""
    if arg not in ("", "smoke"):
        raise ValueError(f"configs/study_toy.py knows no argument {arg!r}; leave it out or use smoke")
    c = ConfigDict()
    c.probe = ConfigDict()
    c.probe.weights = "runs/quickstart/train"
    c.probe.train_shards = "runs/quickstart/shards/probe"
    c.probe.val_shards = "runs/quickstart/shards/val"
    c.probe.budgets = (72, 144, 288, 576)  # 3.1 to 25 % of 64 × 6 × 6 patches, as 512 to 4,096 are of 16,384 at 224 px
    c.probe.seeds = (0, 1, 2)
    c.probe.epochs = 40  # as configs/probe_toy.py
    c.probe.batch_size = 32
    c.probe.lr = 1e-3
    c.probe.lr_end = 1e-7

    c.train_videos = "runs/quickstart/videos/probe"
    c.val_videos = "runs/quickstart/videos/val"
    c.budget_tokens = 288  # as configs/toy.py
    c.budget_policy = "first"
    c.options = (
        "percentile_scope=frame",  # the toy's shards: clip
        "compensation=none",
        "compensation=median",
        "fusion=max",
        "w_motion=0",
        "w_residual=0",
        "motion_feature=variance, residual_feature=gradient",
        "sampling=pool",
        "selection.iframe_policy=first",
        "selection.iframe_policy=score",
    )
    c.maps = (
        "",
        "sampling=pool",
        "sampling=consecutive",
        "percentile_scope=frame",
        "selection.iframe_policy=score",
        "centre_prior=0.3",
    )
    if arg == "smoke":
        c.probe.epochs, c.probe.seeds, c.probe.budgets = 2, (0, 1), (72, 288)
        c.options, c.maps = ("selection.iframe_policy=score",), ("", "selection.iframe_policy=score")
    return c
