"""ove bench_data --config=configs/toy.py …: measures the data pipeline by stages and names the bottleneck."""

import cProfile
import os
import pstats
import time
from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import Sharding

from ove.config import BatchesConfig, RunConfig
from ove.errors import ConfigError
from ove.stream.batch_pipeline import Pipeline
from ove.stream.head_stream import HeadStream
from ove.train.feed import to_devices
from ove.train.sharding import batch_sharding, make_mesh

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.numbers import number

STAGES = {
    "read": ("record",),
    "decode": ("decode_image", "decode_mosaic", "decode_frames"),
}
"""Functions of ove/shards by stage; the rest of a sample's time is `select`, filling its row `batch`."""
REMEDIES = {
    "read": "put the shards on a local disk, or raise batches.threads: a thread that waits for the storage costs no core",
    "decode": "write the shards with mosaics (shards.store), or as JPEG frames in place of H.264, or pictures with a smaller "
    "shards.max_side_px; or give the pipeline more cores",
    "select": "give the pipeline more cores; where threads hinder each other, batches.num_workers",
    "batch": "lower the batch size of a process, or batches.threads: memory is what holds it up",
    "to device": "larger batches a step, or fewer tokens: the connection to the devices is what holds it up",
}


@dataclass(frozen=True)
class HeadSpeed:
    """Seconds per sample of a head in each stage, on one core."""

    bank: str
    batch_size: int
    seconds: dict[str, float]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints, on the shards and labels of the configuration; trains nothing."""
    parser = command_parser("bench_data", __doc__)
    parser.add_argument("--steps", type=number(1), default=20, help="steps over which the whole pipeline is measured")
    parser.add_argument("--samples", type=number(1), default=64, help="of each head, over which single stages are measured")
    options, config = cli_settings.parse_with_config(parser, RunConfig, argv)
    if not config.batches.heads:
        raise ConfigError("batches.heads is empty; there is nothing to measure.")
    print(cli_settings.training_inputs(options.config, config), flush=True)
    pipeline = Pipeline(config.batches)
    heads = [
        _head_speed(stream, head.batch_size, options.samples)
        for head, stream in zip(config.batches.heads, pipeline.streams.values(), strict=True)
    ]
    _print_stages(heads)
    made_s, moved_s = _whole(pipeline, options.steps, batch_sharding(make_mesh(config.mesh)))
    pipeline.close()
    _print_whole(config.batches, heads, made_s, moved_s)


def _head_speed(stream: HeadStream, batch_size: int, samples: int) -> HeadSpeed:
    """Times samples in the order of the stream, once plainly and once under a profiler for the shares."""
    rows = stream.empty(min(samples, batch_size))

    def fill(place: int) -> None:
        stream.fill(rows, place % len(rows.mode), place, lambda source, record: None)

    fill(0)
    profile = cProfile.Profile(builtins=False)
    profile.enable()
    for place in range(samples):
        fill(place)
    profile.disable()
    began = time.perf_counter()
    for place in range(samples, 2 * samples):
        fill(place)
    plain = (time.perf_counter() - began) / samples
    found: dict[tuple[str, int, str], tuple] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    in_shards = {name: entry[3] for (file, _, name), entry in found.items() if "shards" in file}
    spent = {stage: sum(in_shards.get(name, 0.0) for name in names) for stage, names in STAGES.items()}
    total = max(entry[3] for (_, _, name), entry in found.items() if name == "fill")
    seconds = {stage: plain * value / total for stage, value in spent.items()}
    seconds["select"] = plain - sum(seconds.values())
    began = time.perf_counter()
    batch = stream.empty(batch_size)
    for array in vars(batch).values():
        array.fill(0)
    seconds["batch"] = (time.perf_counter() - began) / batch_size
    return HeadSpeed(stream.bank, batch_size, seconds)


def _whole(pipeline: Pipeline, steps: int, sharding: Sharding) -> tuple[float, float]:
    """Returns the seconds to make a step's batches, as configured, and to copy them to the devices."""
    ahead = 2 + pipeline.config.threads * max(pipeline.config.num_workers, 1)
    for _ in range(ahead):  # batches made ahead take no time
        batches = next(pipeline)
    began = time.perf_counter()
    for _ in range(steps):
        batches = next(pipeline)
    made = (time.perf_counter() - began) / steps
    pipeline.close()
    jax.block_until_ready(to_devices(batches, sharding, pipeline.n_centers))
    began = time.perf_counter()
    for _ in range(5):
        jax.block_until_ready(to_devices(batches, sharding, pipeline.n_centers))
    return made, (time.perf_counter() - began) / 5


def _print_stages(heads: Sequence[HeadSpeed]) -> None:
    print("one core, records/s of each stage alone (ms a record):")
    for head in heads:
        parts = [f"{stage} {1 / max(s, 1e-9):,.0f} ({1000 * s:.2f})" for stage, s in head.seconds.items()]
        print(f"  {head.bank}: {', '.join(parts)}, all {1 / sum(head.seconds.values()):,.0f}")


def _print_whole(config: BatchesConfig, heads: Sequence[HeadSpeed], made_s: float, moved_s: float) -> None:
    samples = sum(head.batch_size for head in heads)
    cores = len(os.sched_getaffinity(0))
    makers = config.threads * max(config.num_workers, 1) or 1
    print(
        f"the pipeline ({config.threads} threads, {config.num_workers} processes, {cores} cores): "
        f"{samples / made_s:,.0f} records/s, {1000 * made_s:.1f} ms a step of {samples} samples"
    )
    print(f"to {jax.device_count()} device(s): {samples / moved_s:,.0f} records/s, {1000 * moved_s:.1f} ms a step")
    spent = {stage: sum(head.seconds[stage] * head.batch_size for head in heads) for stage in heads[0].seconds}
    one_core = sum(spent.values())
    if moved_s > made_s:
        worst = "to device"
    else:
        worst = max(spent, key=lambda stage: spent[stage])
    share = "" if worst == "to device" else f" ({spent[worst] / one_core:.0%} of a sample's time)"
    print(f"bottleneck: {worst}{share}; {REMEDIES[worst]}.")
    if makers < cores:
        print(f"{cores - makers} of {cores} cores do nothing for the data: raise batches.threads to {cores}.")
    elif one_core / min(makers, cores) < 0.6 * made_s:
        print(
            f"{min(makers, cores)} cores could make a step in {1000 * one_core / min(makers, cores):.1f} ms: they wait for "
            "each other, or for other programs; try batches.num_workers, with batches.threads = 1."
        )


if __name__ == "__main__":
    run_command(main)
