"""Parts of bench/accelerator.py that need all that training needs: the step of stage 2, fed from shards, and `ove train`."""

import contextlib
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from accelerator_parts import ROOT, Say, figure, gib_of, ms_of, try_each

from configs import pretrain_stage2
from launch.plan import CENTERS, LABELS
from ove.config import RunConfig, ShardsConfig
from ove.config.mapping import from_mapping
from ove.shards.labels import write_labels
from ove.shards.schema import VideoRecord, encode_frames
from ove.shards.write import write_shards
from ove.sources.folders import InputFile
from ove.stream.batch_pipeline import Pipeline
from ove.train.feed import DevicePrefetcher, to_devices
from ove.train.init import init_state
from ove.train.monitor.speed import workload
from ove.train.sharding import batch_sharding, make_mesh, placement, state_shardings
from ove.train.step import make_step

DEVICES = 128
"""Of which a step has as many samples here as one of them (configs/pretrain_stage2.py)."""
FRAMES = 64


def write_clips(folder: Path, count: int, size_px: int, centers: dict[str, int]) -> Path:
    """Writes shards of made-up clips, with random labels of the banks; returns their folder."""

    def record_of(file: InputFile) -> VideoRecord:
        rng = np.random.default_rng(int(file.key))
        coarse = rng.integers(0, 256, (FRAMES, 9, 9, 3), dtype=np.uint8)
        frames = np.stack([cv2.resize(frame, (size_px, size_px), interpolation=cv2.INTER_CUBIC) for frame in coarse])
        return VideoRecord(
            key=file.key,
            frames=encode_frames(frames, 95),
            size_px=size_px,
            patch_px=14,
            frame_index=np.arange(FRAMES, dtype=np.int32),
            pts_s=np.arange(FRAMES) / 25,
            is_i_frame=np.arange(FRAMES) % 32 == 0,
            saliency=rng.random((FRAMES, size_px // 14, size_px // 14)).astype(np.float16),
            source="bitstream",
            codec="h264",
            n_decoded=FRAMES,
            fps=25.0,
            label=None,
        )

    files = [InputFile(folder / str(n), f"{n:04d}", None) for n in range(count)]
    write_shards(files, folder, record_of, ShardsConfig(records_per_shard=8, workers=0), {}, lambda progress: None)
    rng = np.random.default_rng(0)
    for bank, n in centers.items():
        labels = rng.integers(0, n, (count, LABELS[bank]), dtype=np.int32)
        write_labels(folder, bank, labels, None, {}, n)  # type: ignore[arg-type]
    return folder


def step_part(say: Say, is_quick: bool) -> None:
    """Says what a step of stage 2 takes, on a batch that is there and fed from shards, and whether it repeats itself."""
    config = from_mapping(RunConfig, pretrain_stage2.get_config("smoke" if is_quick else "").to_dict())
    centers = {head.bank: 2_000 if is_quick else CENTERS[head.bank] for head in config.batches.heads}
    with tempfile.TemporaryDirectory() as folder:
        begun_s = time.perf_counter()
        shards = write_clips(Path(folder), *((16, 84) if is_quick else (64, 224)), centers)  # type: ignore[misc]
        say("shards written", seconds=round(time.perf_counter() - begun_s, 1))
        size = 8 if is_quick else None
        heads = tuple(replace(h, shards=(), batch_size=size or h.batch_size // DEVICES) for h in config.batches.heads)
        workers = 0 if is_quick else min(config.batches.num_workers, os.cpu_count() or 1)
        batches = replace(config.batches, shards=str(shards), heads=heads, num_workers=workers)
        config = replace(config, batches=batches, train=replace(config.train, init_from=""))
        with contextlib.closing(Pipeline(batches)) as pipeline:
            settings = config.encoder.remat, config.train.grad_accum_steps
            cases = dict.fromkeys([("dots", 1), settings, ("full", 1), ("none", settings[1])])
            for remat, accumulate in list(cases)[: 1 if is_quick else None]:
                encoder, train = replace(config.encoder, remat=remat), replace(config.train, grad_accum_steps=accumulate)
                measure = functools.partial(
                    _step, replace(config, encoder=encoder, train=train), pipeline, 3 if is_quick else 8
                )
                try_each(say, f"remat {remat}, grad_accum_steps {accumulate}", measure)


def _step(config: RunConfig, pipeline: Pipeline, steps: int) -> dict[str, Any]:
    mesh, centers = make_mesh(config.mesh), pipeline.n_centers
    make = jax.jit(functools.partial(init_state, config, centers, placement(mesh).n_shards))
    shardings = state_shardings(jax.eval_shape(make), mesh)
    start = jax.jit(make, out_shardings=shardings)
    batch = to_devices(next(pipeline), batch_sharding(mesh), centers)
    state = jax.block_until_ready(start())
    begun_s = time.perf_counter()
    program = make_step(config, mesh, shardings, centers).lower(state, batch).compile()
    found: dict[str, Any] = {"compile_s": round(time.perf_counter() - begun_s, 1), "temp_gib": gib_of(program)}
    losses, taken = [], []
    for _ in range(2):
        losses.append([])
        state = start()
        for _ in range(steps):
            begun_s = time.perf_counter()
            state, metrics = program(state, batch)
            losses[-1].append(float(metrics["loss"]))
            taken.append(time.perf_counter() - begun_s)
    work = workload(config, centers, {bank: arrays["patches"].shape[1] for bank, arrays in batch.items()})
    middle = statistics.median(taken)
    found |= {
        "ms": ms_of(middle),
        "samples_per_s": figure(work.samples / middle),
        "tflops": figure(work.flops / middle / 1e12),
    }
    waited_s = 0.0
    with contextlib.closing(DevicePrefetcher(pipeline, batch_sharding(mesh), centers)) as feed:
        next(feed)  # processes are up
        jax.block_until_ready(state)
        begun_s = time.perf_counter()
        for _ in range(steps):
            asked_s = time.perf_counter()
            arrays = next(feed).arrays
            waited_s += time.perf_counter() - asked_s
            state, metrics = program(state, arrays)
        jax.block_until_ready(state)
        fed_s = time.perf_counter() - begun_s
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return found | {
        "fed_ms": ms_of(fed_s / steps),
        "waited_for_data": round(waited_s / fed_s, 3),
        "peak_gib": round(peak / 2**30, 1),
        "first_loss": round(losses[0][0], 4),
        "last_loss": round(losses[0][-1], 4),
        "same_twice": losses[0] == losses[1],
    }


def train_part(say: Say, is_quick: bool) -> None:
    """Says how `ove train` starts, stops at SIGTERM, goes on from its checkpoint, and how little the second start compiles."""
    steps = 6 if is_quick else 200
    with tempfile.TemporaryDirectory() as folder:
        shards = write_clips(Path(folder) / "shards", 16, 84, {"vid": 1_000, "obj": 1_000})
        settings: dict[str, Any] = {"batches.shards": shards, "train.log_images": 0, "encoder.compute": "bfloat16"}
        settings |= {"train.steps": steps, "train.log_every": 1 if is_quick else 5}
        if is_quick:
            settings["train.compilation_cache"] = f"{folder}/compiled"
            settings |= {"encoder.layers": 1, "encoder.width": 64, "encoder.heads": 1, "encoder.mlp": 64}
        words = [f"--config.{key}={value}" for key, value in settings.items()]
        workdir = Path(folder) / "run"
        config = f"--config=configs/toy.py{':smoke' * is_quick}"
        command = [sys.executable, "-m", "launch.train", config, f"--workdir={workdir}", *words]
        say("started, then told to stop", **_trained(command, workdir, stop_at=steps // 2))
        say("started again", **_trained(command, workdir, stop_at=steps + 1))


def _trained(command: list[str], workdir: Path, stop_at: int) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    begun_s, said = time.perf_counter(), workdir.with_suffix(".txt")
    with said.open("w") as file:
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)
        while run.poll() is None and _last_line(workdir).get("step", 0) < stop_at:
            time.sleep(0.05)
        run.terminate()
        found: dict[str, Any] = {"code": run.wait()}
    found["seconds"] = round(time.perf_counter() - begun_s, 1)
    found["compiled"] = next((line for line in said.read_text().splitlines() if line.startswith("compiled in")), "")
    last = _last_line(workdir)
    found |= {name: last[name] for name in ("step", "loss", "step_ms", "data_wait", "host_share") if name in last}
    return found if found["code"] in (0, 75) else found | {"said": said.read_text()[-300:]}


def _last_line(workdir: Path) -> dict[str, Any]:
    log = workdir / "metrics.jsonl"
    whole = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")] if log.exists() else []
    return json.loads(whole[-1]) if whole else {}
