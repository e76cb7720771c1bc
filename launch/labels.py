"""`python -m launch.labels --shards DIR`: embeddings → clusters → the nearest centers of every record."""

import argparse
import hashlib
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from launch import text_tags
from launch.command import run
from ove.config import LabelsConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.errors import BadShard, ConfigError
from ove.labels.assign import nearest
from ove.labels.embed import thumbnail_image, thumbnails
from ove.labels.kmeans import kmeans
from ove.shards.labels import Bank, read_centers, read_labels, write_labels
from ove.shards.read import ShardSet
from ove.shards.schema import decode_frames

_THREADS = 2
_EVERY_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Labels a shard folder in both banks, unless that has been done with the same options."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["ocr"]:
        return text_tags.main(arguments[1:])
    options = _parser().parse_args(arguments)
    config = _config(options)
    shards = ShardSet.open(options.shards)
    made_with = _made_with(config, options.centers_from)
    if all(_is_done(options.shards, bank, made_with) for bank in ("vid", "obj")):
        print(f"{options.shards}: has these labels already.")
        return 0
    if options.centers_from is None:
        _check_size(config, len(shards))
    embedded = _embed(shards)
    for bank in ("vid", "obj"):
        _label(options.shards, bank, embedded[bank], config, made_with, options.centers_from)
    return 0


def _label(
    folder: Path,
    bank: Bank,
    points: Float32[np.ndarray, "N E"],
    config: LabelsConfig,
    made_with: Mapping[str, Any],
    centers_from: Path | None,
) -> None:
    """Finds (or takes over) the centers of a bank, writes the labels, and says in a line what came out."""
    if centers_from is None:
        found = kmeans(points, config.n_centers, config.iterations, config.seed)
        centers, objective = found.centers, found.objective
        outcome = f"objective {objective[0]:.4f} → {objective[-1]:.4f} in {len(objective) - 1} iterations"
    else:
        centers, objective = read_centers(centers_from, bank), []
        if centers.shape[1] != points.shape[1]:
            raise BadShard(f"{centers_from}: its {bank} centers are of another teacher; label it again.")
        outcome = f"centers of {centers_from}"
    labels = nearest(points, centers, config.n_labels)
    write_labels(folder, bank, labels, centers, {"made_with": dict(made_with), "objective": objective})
    sizes = np.bincount(labels[:, 0], minlength=len(centers))
    print(
        f"{bank}: {len(points)} samples, {len(centers)} centers, {config.n_labels} labels each; {outcome}; "
        f"cluster sizes {sizes.min()} / {int(np.median(sizes))} / {sizes.max()} (least, median, most)"
    )


def _embed(shards: ShardSet) -> dict[Bank, Float32[np.ndarray, "N E"]]:
    """The teacher's embeddings of all records: of whole clips for `vid`, of their middle frames for `obj`."""
    cv2.setNumThreads(1)

    def one(index: int) -> tuple[np.ndarray, np.ndarray]:
        record = shards.video(index)
        frames = decode_frames(record, range(len(record.frame_index)))
        return thumbnails(frames), thumbnail_image(frames[len(frames) // 2])

    clips, pictures = [], []
    started = printed = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        for clip, picture in pool.map(one, range(len(shards))):
            clips.append(clip)
            pictures.append(picture)
            now = time.monotonic()
            if now - printed > _EVERY_S:
                printed = now
                left_s = (now - started) / len(clips) * (len(shards) - len(clips))
                print(f"embedded {len(clips)}/{len(shards)}, {left_s:.0f} s left", flush=True)
    return {"vid": np.stack(clips), "obj": np.stack(pictures)}


def _made_with(config: LabelsConfig, centers_from: Path | None) -> dict[str, Any]:
    """All that decides the labels besides the shards themselves."""
    decides: dict[str, Any] = to_mapping(config)
    if centers_from is not None:
        for unused in ("n_centers", "iterations", "seed"):
            decides.pop(unused)
        decides["centers"] = {
            bank: hashlib.sha256(np.ascontiguousarray(read_centers(centers_from, bank)).tobytes()).hexdigest()
            for bank in ("vid", "obj")
        }
    return decides


def _is_done(folder: Path, bank: Bank, made_with: Mapping[str, Any]) -> bool:
    try:
        return read_labels(folder, bank).info.get("made_with") == made_with
    except BadShard:  # none, damaged, or of other shards: they are made (again)
        return False


def _check_size(config: LabelsConfig, n_records: int) -> None:
    most = n_records // 2
    if config.n_centers > most:
        advice = f"give --centers {most} or fewer" if most else "write more videos into the shards"
        raise ConfigError(f"labels.n_centers = {config.n_centers} is more than half of the {n_records} records; {advice}.")
    if config.n_labels > config.n_centers:
        raise ConfigError(
            f"labels.n_labels = {config.n_labels} is more than the {config.n_centers} centers; "
            f"give --labels {config.n_centers} or fewer."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launch.labels", description=__doc__)
    parser.add_argument("--shards", type=Path, required=True, help="folder that launch.shards wrote")
    parser.add_argument("--centers", type=int, metavar="K", help="class centers per bank (default: 64)")
    parser.add_argument("--labels", type=int, metavar="M", help="nearest centers kept per sample (default: 10)")
    parser.add_argument("--iterations", type=int, metavar="N", help="of k-means, at most (default: 20)")
    parser.add_argument("--seed", type=int, metavar="N", help="of k-means (default: 0)")
    parser.add_argument(
        "--from", dest="centers_from", type=Path, metavar="DIR", help="labelled shard folder whose centers are taken over"
    )
    return parser


def _config(options: argparse.Namespace) -> LabelsConfig:
    named = {
        "n_centers": options.centers,
        "n_labels": options.labels,
        "iterations": options.iterations,
        "seed": options.seed,
    }
    given = {key: value for key, value in named.items() if value is not None}
    if options.centers_from is not None and given.keys() & {"n_centers", "iterations", "seed"}:
        raise ConfigError("--from takes over the centers of another folder: leave --centers, --iterations and --seed out.")
    return from_mapping(LabelsConfig, given, "labels.")


if __name__ == "__main__":
    run(main)
