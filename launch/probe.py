"""python -m launch.probe --config=configs/probe_toy.py: a frozen encoder under an attentive probe; prints the table."""

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from launch import command, config_file
from ove.config import ProbeConfig
from ove.probe.compare import compare
from ove.probe.report import as_csv, as_json, table


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the arguments, probes, prints the table and writes it as JSON and CSV if asked to."""
    parser = argparse.ArgumentParser(prog="python -m launch.probe", description=__doc__)
    parser.add_argument("--out", type=Path, help="write scores and table to this JSON file, and a CSV beside it")
    arguments, config = config_file.parse(parser, ProbeConfig, argv)
    comparison = compare(config, partial(print, flush=True))
    print("\n" + table(comparison))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(as_json(comparison), indent=2) + "\n")
        arguments.out.with_suffix(".csv").write_text(as_csv(comparison))


if __name__ == "__main__":
    command.run(main)
