"""ove toy --out DIR: writes labelled toy videos to DIR/train, DIR/probe and DIR/val (a subfolder a class)."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2

from ove.paths import output_folder
from ove.toy import CLASSES, write_video

from .cli.command import command_parser, run_command
from .cli.numbers import number

SPLITS = {"train": 0, "probe": 1_000_003, "val": 2_000_003}
"""Added to the seed, so that splits share no video; runs have seeds below a million."""


def main(argv: Sequence[str] | None = None) -> None:
    """Renders and encodes missing videos, in parallel processes."""
    parser = command_parser("toy", __doc__)
    parser.add_argument("--out", required=True, type=Path, help="folder for the videos")
    parser.add_argument("--train", type=number(0), default=640, help="videos to pretrain on (default 640)")
    parser.add_argument("--probe", type=number(0), default=160, help="videos to train a probe on (default 160)")
    parser.add_argument("--val", type=number(0), default=256, help="videos to score it on (default 256)")
    parser.add_argument("--seed", type=number(0), default=0, help="another one draws other videos (default 0)")
    parser.add_argument("--workers", type=number(1), default=2, help="processes (default 2)")
    arguments = parser.parse_args(argv)
    arguments.out = output_folder(arguments.out, "--out")
    for split, offset in SPLITS.items():
        n = getattr(arguments, split)
        if n > 0:
            _write(arguments.out / split, n, arguments.seed + offset, arguments.workers)
            print(f"{arguments.out / split}: {n} videos of {len(CLASSES)} classes", flush=True)


def _write(folder: Path, n: int, seed: int, workers: int) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for done, _ in enumerate(pool.map(partial(write_video, folder, seed), range(n), chunksize=8), start=1):
            if done % 100 == 0 and done < n:
                print(f"{folder}: {done}/{n}", flush=True)


if __name__ == "__main__":
    run_command(main)
