"""How long do lists, folders and sets take that are long, and how much memory?

python bench/scale.py [--quick]: a CSV list and a text list of a million lines are parsed; a folder of 10,000 small pictures is
listed and written into shards, and once more without work to do; a set of 20,000 shards is opened and read at random; keys and
class names of the pictures are read from the index, and, for comparison, from the records. Each in a process of its own, with
its CPU seconds and its peak of memory above that of an idle one; the last line is one JSON object.
"""

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from ove.config import ShardsConfig, VideoConfig
from ove.shards.make import write_source
from ove.shards.manifest import Shard, fingerprint_of_shards, read_manifest, write_manifest
from ove.shards.shard_set import ShardSet
from ove.sources.folders import files_in_folder, files_in_list
from ove.sources.lists import rows_of_list


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of everything")
    part = 50 if parser.parse_args().quick else 1
    lines, pictures, shards = 1_000_000 // part, 10_000 // part, 20_000 // part
    results = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "list.csv").write_text("path,label\n" + "".join(f"c{n % 400}/{n:07d}.mp4,c{n % 400}\n" for n in range(lines)))
        (folder / "list.txt").write_text("".join(f"c{n % 400}/{n:07d}.mp4 {n % 400}\n" for n in range(lines)))
        _write_pictures(folder / "pictures", pictures)
        idle = _measured(_nothing, folder)[1]
        for title, work in {
            f"list of {lines:,} lines, CSV": _csv,
            f"list of {lines:,} lines, text": _text,
            f"folder of {pictures:,} pictures, listed": _list_folder,
            f"{pictures:,} pictures into shards": _write_shards,
            "the same again, nothing to do": _write_shards,
            "their names from the index": _names,
            "their names from the records": _names_of_records,
        }.items():
            results[title] = _measured(work, folder, idle)
        _many_shards(folder / "shards", folder / "many", shards)
        results[f"set of {shards:,} shards, opened"] = _measured(_open_many, folder, idle)
        results["the same, 5,000 records at random"] = _measured(_read_many, folder, idle)
    for title, (seconds, mib) in results.items():
        print(f"{title:45} {seconds:8.2f} s {mib:8.0f} MiB")
    print(json.dumps({"bench": "scale", "seconds_mib": {title: [round(s, 3), round(m)] for title, (s, m) in results.items()}}))


def _measured(work: Callable[[Path], None], folder: Path, idle: float = 0.0) -> tuple[float, float]:
    """Returns CPU seconds and the peak of memory in MiB above `idle` of a call in a process of its own."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(work, folder, sender))
    process.start()
    sender.close()
    seconds, mib = receiver.recv()
    process.join()
    return seconds, mib - idle


def _report(work: Callable[[Path], None], folder: Path, sender: "multiprocessing.connection.Connection") -> None:
    before = time.process_time()
    work(folder)
    sender.send((time.process_time() - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def _nothing(folder: Path) -> None:
    pass


def _csv(folder: Path) -> None:
    assert rows_of_list(folder / "list.csv").files


def _text(folder: Path) -> None:
    assert files_in_list(folder / "list.txt")


def _list_folder(folder: Path) -> None:
    assert files_in_folder(folder / "pictures")


def _write_shards(folder: Path) -> None:
    write_source("image", folder / "pictures", folder / "shards", VideoConfig(), ShardsConfig(workers=0), lambda _: None)


def _names(folder: Path) -> None:
    assert ShardSet.open(folder / "shards").names


def _names_of_records(folder: Path) -> None:
    shards = ShardSet.open(folder / "shards")
    assert [(record.key, record.label) for record in map(shards.record, range(len(shards)))]


def _open_many(folder: Path) -> None:
    ShardSet.open(folder / "many")


def _read_many(folder: Path) -> None:
    shards = ShardSet.open(folder / "many")
    for index in np.random.default_rng(0).integers(0, len(shards), 5000).tolist():
        shards.record(index)


def _write_pictures(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for n in range(count):
        path = folder / f"c{n % 10}" / f"{n:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))


def _many_shards(source: Path, folder: Path, count: int) -> None:
    """Makes a set of `count` shards, all links to the first of another set."""
    folder.mkdir()
    manifest = read_manifest(source)
    first = manifest.shards[0]
    shards = [Shard(f"shard-{n:05d}.arrayrecord", first.records, first.bytes, first.sha256) for n in range(count)]
    for shard in shards:
        os.link(source / first.file, folder / shard.file)
    made = {"shards": shards, "records": count * first.records, "fingerprint": fingerprint_of_shards(shards), "index": ""}
    write_manifest(folder, type(manifest)(**{**vars(manifest), **made}))


if __name__ == "__main__":
    main()
