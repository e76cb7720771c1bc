"""ove probe --config=configs/probe.py: probes a frozen encoder and prints a table of scores.

ove probe --features FILE.npz --labels labels.csv: probes what `ove encode` wrote, without encoding again; with --val-features
OTHER.npz --val-labels val.csv it is scored on the second.

On several machines, once on each, as `ove train`: each computes features and scores of a part of the samples.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import jax

from ove import distributed as processes
from ove.api.probe import probe
from ove.api.probe_settings import OF_HEAD
from ove.api.samples import labelled_files, reading_of
from ove.config import ProbeConfig
from ove.errors import ConfigError
from ove.files import write_json, write_text
from ove.paths import output_file
from ove.probing.compare import compare
from ove.probing.predictions import are_predictions, check_name, write_predictions
from ove.probing.report import as_csv, as_json, is_report, table
from ove.shards.joined import open_shards

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.numbers import number
from .cli.processes import add_options, join_processes

_MEET_LIMIT_S, _SILENCE_LIMIT_S = 600.0, 60.0
"""How long processes wait for each other at the start, and without a sign of life from one."""

_READING = {"path_column": "", "label_column": "", "label_folder": 0, "root": ""}
"""Options that say how lists of labels are written, with their defaults."""

_DEFAULTS = ProbeConfig()

LEAVE = processes.exit
"""How the command exits."""


def main(argv: Sequence[str] | None = None) -> None:
    """Probes; the first process prints the table and writes files."""
    parser = command_parser("probe", __doc__)
    add = parser.add_argument
    add("--out", type=Path, help="write scores and table to this JSON file, and a CSV beside it")
    add("--replace", action="store_true", help="overwrite a file that this command has not written")
    add("--predictions", type=Path, metavar="FILE", help="write per-sample predictions for the validation set (.jsonl or .csv)")
    about = "processes that decode each set (default: 2); 0: none, and no guard against records that hang"
    add("--workers", type=number(0), default=2, metavar="N", help=about)
    of_features = parser.add_argument_group("features that are there already (without --config)")
    add = of_features.add_argument
    add("--features", type=Path, metavar="FILE", help="a feature file of `ove encode` (.npz)")
    add("--labels", type=Path, metavar="LIST", help="class names of its files: .csv (columns path, label), .jsonl or .txt")
    add("--val-features", type=Path, metavar="FILE", help="another feature file, to score on (default: --val-share)")
    add("--val-labels", type=Path, metavar="LIST", help="class names of its files (default: --labels has these, too)")
    share = number(0, 1, above=True, of=float)
    add("--val-share", type=share, metavar="SHARE", help="of each class, to score on (default: 0.2)")
    add("--head", choices=("linear", "knn"), help="default: linear")
    add("--path-column", metavar="NAME", help="of --labels (default: path)")
    add("--label-column", metavar="NAME", help="of --labels (default: label)")
    add("--label-folder", type=number(1), metavar="N", help="the N-th folder above a file is its class (without --labels)")
    add("--root", type=Path, metavar="DIR", help="where relative paths of --labels start (default: the list's folder)")
    add_options(parser)
    arguments, config = cli_settings.parse_with_config(parser, ProbeConfig, argv, unless="features")
    if _probed_features(arguments, config):
        return
    if arguments.out:
        arguments.out = output_file(arguments.out, "--out", (), is_report, arguments.replace)
        output_file(arguments.out.with_suffix(".csv"), "--out", (), is_report, arguments.replace)
        if arguments.out.suffix == ".csv":
            raise ConfigError(
                f"--out {arguments.out}: is the name of the CSV that is written beside the JSON; end it in .json."
            )
    if arguments.predictions:
        check_name(arguments.predictions)
        arguments.predictions = output_file(arguments.predictions, "--predictions", (), are_predictions, arguments.replace)
    join_processes(arguments, _MEET_LIMIT_S, _SILENCE_LIMIT_S)
    is_first = jax.process_index() == 0
    if is_first:
        print(cli_settings.inputs_line(arguments.config, [config.train_shards, config.val_shards], config.weights), flush=True)
    comparison = compare(config, partial(print, flush=True) if is_first else lambda line: None, workers=arguments.workers)
    if not is_first:
        return
    print("\n" + table(comparison))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(arguments.out, as_json(comparison), indent=2)
        write_text(arguments.out.with_suffix(".csv"), as_csv(comparison))
    if arguments.predictions:
        write_predictions(arguments.predictions, comparison, open_shards(config.val_shards).names)


def _probed_features(arguments: argparse.Namespace, config: ProbeConfig) -> bool:
    """Probes the feature file that is named, and prints the result; False if there is none."""
    names = ("labels", "val_features", "val_labels", "val_share", "head", *_READING)
    given = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.features is None:
        if given:
            raise ConfigError(
                f"--{next(iter(given)).replace('_', '-')} goes with --features; name a feature file, or leave it out."
            )
        return False
    if arguments.out or arguments.predictions:
        raise ConfigError("--out and --predictions are written of shards only; leave them out with --features.")
    if not {"labels", "label_folder"} & given.keys():
        raise ConfigError("--features needs class names; give --labels LIST or --label-folder N.")
    settings = _settings_of_head(arguments, config)
    val = given.pop("val_features", None)
    if val is None and "val_labels" in given:
        raise ConfigError("--val-labels goes with --val-features; name the feature file to score on, or leave it out.")
    if val is not None and "val_share" in given:
        raise ConfigError("--val-share has no meaning with --val-features, all of which is scored; leave one of the two out.")
    if "val_labels" in given:
        given = _with_joined_labels(given)
    print(probe(None, arguments.features, val, **given, **settings))
    return True


def _settings_of_head(arguments: argparse.Namespace, config: ProbeConfig) -> dict[str, Any]:
    """Returns the settings that the head has; ConfigError for another that was set on the command line."""
    head = arguments.head or "linear"
    own = (*OF_HEAD[head], "seeds")
    for field in fields(config):
        if arguments.config is None and field.name not in own and getattr(config, field.name) != getattr(_DEFAULTS, field.name):
            raise ConfigError(f"{field.name} has no meaning with --features and --head {head}, which has {', '.join(own)}.")
    return {name: getattr(config, name) for name in own}


def _with_joined_labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces `labels` and `val_labels` by the class name of each file in either list; ConfigError if the two disagree."""
    if "labels" not in given:
        raise ConfigError("--val-labels needs --labels, with the class names of --features; give both lists.")
    reading = reading_of(**{name: given.get(name, default) for name, default in _READING.items()})
    train, val = (dict(labelled_files(given[name], **reading)) for name in ("labels", "val_labels"))
    for file in train.keys() & val.keys():
        if train[file] != val[file]:
            raise ConfigError(
                f"{file}: is {train[file]} in {given['labels']} and {val[file]} in {given['val_labels']}; correct one of them."
            )
    others = {name: value for name, value in given.items() if name not in ("labels", "val_labels", *_READING)}
    return others | {"labels": train | val}


if __name__ == "__main__":
    run_command(main, LEAVE)
