"""Is memory flat, and are the counts right, when a run meets damaged records?

python bench/bad_records.py [--steps 3000] [--quick]: trains a tiny encoder on two heads, one of local shards and one of shards
that a server on this machine hands out over http. One record in a hundred is damaged: local ones by a flipped bit, remote ones
by whole shards that are not what was written. Tells resident memory at every tenth of the steps, and compares the records set
aside and the samples replaced with those that were damaged; the last line is one JSON object. Exit code 1 if memory grew by
more than 1 % after the first tenth, or a count is wrong.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from remote_servers import serving
from synthetic import BUDGET, GOP, write_set

from ove.config import BatchesConfig, EncoderConfig, HeadConfig, RunConfig, SelectionConfig, TrainConfig
from ove.shards.shard_set import ShardSet
from ove.train.loop import train

RECORDS, PER_SHARD, BATCH = 800, 8, 8
_MOST_GROWTH = 0.01


def main() -> int:
    """Trains, measures, prints; 1 if memory grew or a count is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--quick", action="store_true", help="60 steps, memory not judged")
    options = parser.parse_args()
    steps, started = 60 if options.quick else options.steps, time.monotonic()
    with tempfile.TemporaryDirectory() as name, serving(Path(name) / "served") as server:
        folder = Path(name)
        os.environ["OVE_CACHE"] = str(folder / "cache")
        local = write_set(folder / "local", RECORDS)
        damaged = {"local": _flip(local), "remote": _swap(write_set(server.folder / "set", RECORDS))}
        memory: dict[int, float] = {}

        def report(line: str) -> None:
            if line.startswith("step "):
                memory[int(line.split()[1].split("/")[0])] = _resident_mib()

        train(_config(local, f"{server.url}/set", steps), folder / "run", report)
        found: dict[str, set[int]] = {"local": set(), "remote": set()}
        for entry in map(json.loads, (folder / "run" / "quarantine.jsonl").read_text().splitlines()):
            found["local" if entry["shards"] == str(local) else "remote"].add(entry["record"])
        replaced = _replaced(folder / "run" / "metrics.jsonl")
    tenths = [mib for step, mib in memory.items() if step % (steps // 10) == 0]
    growth = max(tenths) / tenths[0] - 1
    epochs = steps * BATCH / RECORDS  # each takes every record once, so that whole ones meet each damaged record as often
    expected = epochs * sum(map(len, damaged.values()))
    print(f"{steps} steps, MiB at every tenth: {', '.join(f'{mib:.1f}' for mib in tenths)} ({growth:+.2%} at most)")
    print(f"set aside: {len(found['local'])} local and {len(found['remote'])} remote of {len(damaged['local'])} each")
    print(f"replaced: {replaced} samples, {expected:g} expected")
    is_right = found == damaged and replaced == expected
    if epochs % 1:
        is_right = all(found[kind] <= damaged[kind] for kind in damaged) and 0 < replaced < math.ceil(epochs) * sum(
            map(len, damaged.values())
        )
    summary = {
        "bench": "bad_records",
        "steps": steps,
        "resident_mib": [round(mib, 1) for mib in tenths],
        "set_aside": {kind: len(records) for kind, records in found.items()},
        "damaged": {kind: len(records) for kind, records in damaged.items()},
        "replaced": replaced,
        "counts_right": is_right,
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary))
    return int(not is_right or (not options.quick and growth > _MOST_GROWTH))


def _flip(folder: Path) -> set[int]:
    """Flips a bit in the middle of one record of a hundred, one in a shard; returns their indices."""
    shards, damaged = ShardSet.open(folder), set()
    for n in range(0, len(shards.manifest.shards), 100 // PER_SHARD):
        if len(damaged) == RECORDS // 100:
            break
        index = n * PER_SHARD + n % PER_SHARD
        path = folder / shards.manifest.shards[n].file
        data = bytearray(path.read_bytes())
        record = shards.bytes_at(index)
        data[data.index(record) + len(record) // 2] ^= 16
        path.write_bytes(data)
        damaged.add(index)
    return damaged


def _swap(folder: Path) -> set[int]:
    """Replaces one shard in a hundred by other bytes of the same length; returns the indices of its records."""
    shards, damaged = ShardSet.open(folder), set()
    for n in range(50, len(shards.manifest.shards), 100):
        path = folder / shards.manifest.shards[n].file
        path.write_bytes(path.read_bytes()[::-1])
        damaged |= set(range(n * PER_SHARD, (n + 1) * PER_SHARD))
    return damaged


def _config(local: Path, remote: str, steps: int) -> RunConfig:
    heads = (
        HeadConfig("vid", BATCH, negatives=0.5, labels_per_step=2, shards=(str(local),)),
        HeadConfig("obj", BATCH, negatives=0.5, labels_per_step=2, shards=(remote,)),
    )
    batches = BatchesConfig(budget_tokens=BUDGET, selection=SelectionConfig(gop_frames=GOP), heads=heads, max_bad_share=0.1)
    timing = TrainConfig(steps=steps, warmup_steps=2, log_every=10, save_every=steps)
    return RunConfig(batches, EncoderConfig(layers=1, width=32, heads=1, mlp=64), train=timing)


def _replaced(log: Path) -> int:
    """Returns the number of samples that stand in for damaged ones, over all steps, as the run has logged it."""
    return json.loads(log.read_text().splitlines()[-1])["bad_records"]


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
