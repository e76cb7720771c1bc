"""Probing on video benchmarks with the paper's settings (spec §6): `configs/probe_benchmarks.py:ssv2`, or `:ssv2,smoke`."""

from ml_collections import ConfigDict

from ove.probing.annotations.benchmarks import BENCHMARKS


def get_config(arg: str = "") -> ConfigDict:
    """`arg`: the name of a benchmark; with `,smoke` two epochs, one seed, one budget."""
    name, _, more = arg.partition(",")
    if name not in BENCHMARKS or more not in ("", "smoke"):
        raise ValueError(
            f"configs/probe_benchmarks.py knows no argument {arg!r}; write :NAME or :NAME,smoke of {', '.join(BENCHMARKS)}"
        )
    c = ConfigDict()
    c.weights = "weights/onevision-encoder-large"
    c.train_shards = f"shards/{name}_train"
    c.val_shards = f"shards/{name}_val"
    c.modes = ("codec", "frames")
    c.budgets = (512, 1024, 2048, 4096)  # patches of 64 frames, or 2, 4, 8 and 16 whole frames
    c.selection = ConfigDict()
    c.selection.iframe_policy = "first"  # with two whole frames of 64 (`keep`) a budget of 512 has nothing left to choose
    c.epochs, c.batch_size = BENCHMARKS[name].epochs, BENCHMARKS[name].batch_size
    c.lr = 1e-4
    c.lr_end = 1e-7
    c.label_smoothing = 0.1
    c.clip_norm = 5.0
    c.seeds = (0, 1, 2)
    c.untrained = False
    c.compute = "bfloat16"
    c.features = "encode"  # of the large ones no disk holds the tokens
    if more == "smoke":
        c.budgets, c.seeds, c.epochs = (512,), (0,), 2
    return c
