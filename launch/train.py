"""python -m launch.train --config=configs/toy.py --workdir=DIR: trains, or goes on where the run in DIR stopped."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from launch import command, config_file
from ove.config import RunConfig
from ove.train.loop import train


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the arguments and runs the loop."""
    parser = argparse.ArgumentParser(prog="python -m launch.train", description=__doc__)
    parser.add_argument("--workdir", required=True, type=Path, help="checkpoints, metrics and configuration of the run")
    arguments, config = config_file.parse(parser, RunConfig, argv)
    train(config, arguments.workdir, partial(print, flush=True))


if __name__ == "__main__":
    command.run(main)
