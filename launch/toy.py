"""python -m launch.toy --out DIR: writes labelled toy videos to DIR/train and DIR/val (a subfolder a class)."""

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from launch import command
from ove.batches.toy import CLASSES, write_video

_VAL_SEED_OFFSET = 1_000_003


def main() -> None:
    """Renders and encodes what is not there yet, in parallel processes."""
    parser = argparse.ArgumentParser(prog="python -m launch.toy", description=__doc__)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--train", type=int, default=512, help="videos to train on (default 512)")
    parser.add_argument("--val", type=int, default=256, help="videos to score on (default 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for split, n, seed in (
        ("train", arguments.train, arguments.seed),
        ("val", arguments.val, arguments.seed + _VAL_SEED_OFFSET),
    ):
        _write(arguments.out / split, n, seed, arguments.workers)
        print(f"{arguments.out / split}: {n} videos of {len(CLASSES)} classes", flush=True)


def _write(folder: Path, n: int, seed: int, workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for _ in pool.map(partial(write_video, folder, seed), range(n), chunksize=8):
            pass


if __name__ == "__main__":
    command.run(main)
