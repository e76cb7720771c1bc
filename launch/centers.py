"""ove centers export|report RUN …: class centers of a training run, as files or as a page with samples."""

import argparse
import glob
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import jax
import numpy as np
from jaxtyping import Float32, Int32

from ove.centers.center_files import write_centers
from ove.config import RunConfig
from ove.config.mapping import from_mapping
from ove.encoder import encoder
from ove.errors import ConfigError
from ove.files import write_json, write_text
from ove.labels.clusters.assign import nearest
from ove.paths import check_names, holds_keys, output_file, output_folder
from ove.records import BANKS, CODEC, IMAGE
from ove.shards.schema import decode_frames
from ove.shards.shard_set import ShardSet
from ove.stream.modes import TokenView, to_tokens
from ove.train.checkpoints.checkpoint import restore_encoder
from ove.train.checkpoints.saved_bank import SavedBank, open_bank

from .cli.command import command_parser, run_command
from .cli.numbers import number

_RECORDS_AT_ONCE = 16
"""Records per encoder call."""
_STYLE = "body{font:15px sans-serif;margin:2em} img{height:112px;margin-right:4px} h2{font-size:16px;margin:1.2em 0 .3em}"


def main(argv: Sequence[str] | None = None) -> None:
    """Exports or reports a bank."""
    options = _parser().parse_args(argv)
    _check_out(options)
    bank = open_bank(options.run, options.bank, options.step)
    (_export if options.task == "export" else _report)(bank, options)


def _check_out(options: argparse.Namespace) -> None:
    """Expands --out; ConfigError if something would be overwritten that was not asked for."""
    if options.task == "report":
        options.out = output_folder(options.out, "--out")
        ours = holds_keys(options.out / "report.json", "bank", "step", "centers")
        check_names(options.out, ("report.json", "index.html", "pictures"), "--out", ours, options.replace)
        return
    out = options.out = output_file(options.out, "--out", replace=options.replace)
    parts = out.parent.glob(f"{glob.escape(out.stem)}-[0-9]*-of-[0-9]*{out.suffix}") if options.files > 1 else ()
    check_names(out.parent, (part.name for part in parts), "--out", ours=False, replace=options.replace)


def _export(bank: SavedBank, options: argparse.Namespace) -> None:
    files = write_centers(bank.blocks(), bank.n_centers, bank.width, options.out, options.files)
    print(
        f"{bank.n_centers:,} centers of bank {bank.name}, width {bank.width}, step {bank.step}: "
        f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}"
    )


def _report(bank: SavedBank, options: argparse.Namespace) -> None:
    """Writes a page, and JSON, with the nearest samples of some centers."""
    shards = ShardSet.open(options.shards)
    often = bank.positive_steps()
    centers = _chosen(bank, often, options)
    embeddings = _embed(bank, shards)
    count = min(options.nearest, len(shards))
    samples = nearest(bank.centers(centers), embeddings, count)
    pictures = options.out / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for sample in np.unique(samples):
        record = shards.video(int(sample))
        frame = decode_frames(record, [len(record.frame_index) // 2])[0]
        cv2.imwrite(str(pictures / f"{sample}.jpg"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    entries = []
    for center, row, mine in zip(centers.tolist(), bank.centers(centers), samples, strict=True):
        norm = float(np.linalg.norm(row))
        cosines = embeddings[mine] @ row / np.maximum(np.linalg.norm(embeddings[mine], axis=1) * norm, 1e-30)
        near = [
            {"record": int(i), "key": shards.record(int(i)).key, "cosine": round(float(c), 4)}
            for i, c in zip(mine, cosines, strict=True)
        ]
        entries.append({"center": center, "steps_as_label": int(often[center]), "norm": round(norm, 5), "samples": near})
    write_json(options.out / "report.json", {"bank": bank.name, "step": bank.step, "centers": entries})
    used = f"{(often > 0).sum():,} of {bank.n_centers:,} centers were ever a label"
    title = f"Bank {bank.name} at step {bank.step}: {used}"
    write_text(options.out / "index.html", _page(title, entries))
    print(f"{title}; {len(centers)} centers with their {count} nearest samples in {options.out / 'index.html'}")


def _chosen(bank: SavedBank, often: Int32[np.ndarray, "C"], options: argparse.Namespace) -> Int32[np.ndarray, "n"]:
    """Returns the centers asked for, or the most frequent ones and as many drawn from the rest."""
    if options.ids:
        wrong = [i for i in options.ids if not 0 <= i < bank.n_centers]
        if wrong:
            raise ConfigError(f"--ids {wrong[0]}: bank {bank.name} has the centers 0…{bank.n_centers - 1}.")
        return np.array(options.ids, np.int32)
    count = min(options.centers, bank.n_centers)
    order = np.argsort(-often, kind="stable")
    top = order[: (count + 1) // 2]
    rest = np.random.default_rng(0).permutation(order[len(top) :])[: count - len(top)]
    return np.concatenate([top, np.sort(rest)]).astype(np.int32)


def _embed(bank: SavedBank, shards: ShardSet) -> Float32[np.ndarray, "N E"]:
    """Embeds every record as in training, without augmentation: clips in mode codec, images whole."""
    config = from_mapping(RunConfig, bank.meta.config)
    view = TokenView(config.batches.budget_tokens, config.batches.selection)
    mode = CODEC if bank.name == "vid" else IMAGE
    view.check(shards.grid_tyx, {mode})
    encoder_config, params, _ = restore_encoder(bank.workdir, bank.step)
    embed = jax.jit(lambda patches, positions: encoder.apply(encoder_config, params, patches, positions).pooled)
    found = []
    for start in range(0, len(shards), _RECORDS_AT_ONCE):
        # The last batch is padded with copies, so that one program serves all.
        numbers = [min(start + i, len(shards) - 1) for i in range(_RECORDS_AT_ONCE)]
        seen = [to_tokens(shards.video(number), mode, view, None) for number in numbers]
        patches, positions = (np.stack(part) for part in zip(*seen, strict=True))
        found.append(np.asarray(embed(patches, positions), np.float32)[: len(shards) - start])
    return np.concatenate(found)


def _page(title: str, entries: list[dict]) -> str:
    parts = [f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"]
    for entry in entries:
        steps = f"a label in {entry['steps_as_label']:,} steps, norm {entry['norm']}"
        parts.append(f"<h2>center {entry['center']} <small>({steps})</small></h2>")
        for sample in entry["samples"]:
            name = html.escape(f"{sample['key']}, cosine {sample['cosine']:.3f}", quote=True)
            parts.append(f'<img src="pictures/{sample["record"]}.jpg" title="{name}" alt="{name}">')
    return "\n".join(parts) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("centers", __doc__)
    tasks = parser.add_subparsers(dest="task", required=True, help="what to do; each has --help")
    export = tasks.add_parser("export", help="write a bank as .npy or .safetensors, in the order of its centers")
    report = tasks.add_parser("report", help="a page with the nearest samples of some centers")
    for task in (export, report):
        task.add_argument("run", type=Path, metavar="RUN", help="the --workdir of a training run")
        task.add_argument("--bank", choices=BANKS, default="vid", help="which (default: vid)")
        task.add_argument("--step", type=number(0), metavar="N", help="checkpoint (default: the newest)")
        task.add_argument("--replace", action="store_true", help="overwrite files that this command has not written")
    export.add_argument("--out", type=Path, required=True, help="file to write; its ending says the format")
    export.add_argument("--files", type=number(1), default=1, metavar="N", help="files to divide the bank into (default: 1)")
    report.add_argument("--shards", type=Path, required=True, metavar="DIR", help="folder of shards to look for samples in")
    report.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for index.html and its pictures")
    report.add_argument("--centers", type=number(1), default=24, metavar="N", help="how many (default: 24)")
    report.add_argument("--ids", type=number(0), nargs="+", metavar="C", help="these, instead of frequent and random ones")
    report.add_argument("--nearest", type=number(1), default=8, metavar="M", help="samples for each center (default: 8)")
    return parser


if __name__ == "__main__":
    run_command(main)
