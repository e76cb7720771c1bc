"""Compares the training step on this CPU with a plain PyTorch trainer of the reference's design, alternating.

python bench/train.py [--rounds 5] [--batch 4] [--loss margin_softmax sigmoid] [--accumulate 1] [--quick]

An encoder of base size cut to 4 layers, clips of 2,048 tokens, a bank of 400,000 × 256 of which a tenth is sampled, 8 labels a
sample; float32. Each trainer steps through batches in a process of its own; they take turns, so that all meet the same noise.
`host`: the share of a step of ours in which the device has been given nothing yet or no longer (dispatch and reading the
metrics), measured as the loop works: one step is under way while the metrics of the one before are read. `--quick`: a small
encoder and bank, to see that it runs, without PyTorch where that is missing. Needs requirements-bench.txt.

python bench/train.py --loop [--config configs/toy.py] [--shards DIR] [--steps 60]

runs `ove train` itself for so many steps, by default on toy videos that are made for it, and tells what its log says of the
host: `host_share`, `host_wait`, `data_wait` (docs/watching.md), medians over the logged lines after the first.
The last line of either is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from needs import has, need

ROOT = Path(__file__).resolve().parents[1]
FULL = {"width": 768, "heads": 12, "mlp": 3072, "layers": 4, "tokens": 2048, "centers": 400_000, "embedding": 256}
QUICK = {"width": 192, "heads": 3, "mlp": 768, "layers": 2, "tokens": 512, "centers": 20_000, "embedding": 64}
SHARE, LABELS = 0.1, 8
LEAST_FASTER, MOST_HOST = 1.5, 0.05
"""Targets: torch's time to ours; share of the host."""
Step = Callable[[], dict[str, float]]


def encoder_config(sizes: dict[str, int]) -> Any:
    from ove.config import EncoderConfig

    return EncoderConfig(**{name: sizes[name] for name in ("layers", "width", "heads", "mlp", "embedding")})


def batches(sizes: dict[str, int], batch: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A few batches of noise."""
    rng, grid, found = np.random.default_rng(0), 16, []
    for _ in range(3):
        flat = np.sort(rng.choice(64 * grid * grid, (batch, sizes["tokens"])), axis=1)
        positions = np.stack([flat // grid**2, flat // grid % grid, flat % grid], axis=-1).astype(np.int32)
        patches = rng.integers(0, 256, (batch, sizes["tokens"], 588), dtype=np.uint8)
        found.append((patches, positions, rng.integers(0, sizes["centers"], (batch, LABELS)).astype(np.int32)))
    return found


def ours(sizes: dict[str, int], batch: int, loss: str, accumulate: int) -> Step:
    """The step of `ove.train`, one ahead of the host."""
    from functools import partial

    import jax

    from ove.config import BatchesConfig, CentersConfig, HeadConfig, RunConfig, TrainConfig
    from ove.train.init import init_state
    from ove.train.sharding import batch_sharding, make_mesh, state_shardings
    from ove.train.step import make_step

    head = HeadConfig("vid", batch, negatives=SHARE, labels_per_step=LABELS)
    train = TrainConfig(warmup_steps=0, grad_accum_steps=accumulate)
    config = RunConfig(BatchesConfig(heads=(head,)), encoder_config(sizes), CentersConfig(loss=loss), train)
    mesh, n_centers = make_mesh(), {"vid": sizes["centers"]}
    make = jax.jit(partial(init_state, config, n_centers))
    shardings = state_shardings(jax.eval_shape(make), mesh)
    names, place = ("patches", "positions", "labels"), batch_sharding(mesh)
    data = [{"vid": jax.device_put(dict(zip(names, arrays, strict=True)), place)} for arrays in batches(sizes, batch)]
    state = jax.block_until_ready(jax.jit(make, out_shardings=shardings)())
    compiled = make_step(config, mesh, shardings, n_centers).lower(state, data[0]).compile()
    before: Any = None
    number = 0

    def step() -> dict[str, float]:
        nonlocal state, before, number
        begun = time.perf_counter()
        state, metrics = compiled(state, data[number % len(data)])
        host = time.perf_counter() - begun
        if before is not None:
            jax.block_until_ready(before)
            reading = time.perf_counter()
            values = {name: float(value) for name, value in jax.device_get(before).items()}
            assert np.isfinite(values["loss"])
            host += time.perf_counter() - reading
        before, number = metrics, number + 1
        jax.block_until_ready(metrics)
        return {"seconds": time.perf_counter() - begun, "host": host}

    return step


def torchs(sizes: dict[str, int], batch: int) -> Step:
    """The step of bench/torch_trainer.py."""
    from torch_trainer import Trainer

    trainer = Trainer(encoder_config(sizes), sizes["centers"], round(SHARE * sizes["centers"]))
    data, number = batches(sizes, batch), 0

    def step() -> dict[str, float]:
        nonlocal number
        begun = time.perf_counter()
        assert np.isfinite(trainer(*data[number % len(data)]))
        number += 1
        return {"seconds": time.perf_counter() - begun}

    return step


def serve(options: argparse.Namespace, sizes: dict[str, int]) -> None:
    """In a process of its own: a step for each line of the input, what it took as a line of the output."""
    kind, batch = options.serve, options.batch
    step = torchs(sizes, batch) if kind == "torch" else ours(sizes, batch, kind, options.accumulate)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)


class Other:
    """A trainer in a process of its own."""

    def __init__(self, kind: str, options: argparse.Namespace) -> None:
        arguments = ["--serve", kind, "--batch", str(options.batch), "--accumulate", str(options.accumulate)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        command = [sys.executable, __file__, *arguments, *(["--quick"] if options.quick else [])]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> dict[str, float]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a trainer has ended; see its message above")
        return json.loads(answer)

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def real_loop(options: argparse.Namespace) -> None:
    """A run of `ove train`, as one would start it, and what it says of its host."""

    def launch(name: str, *words: object) -> None:
        done = subprocess.run([sys.executable, "-m", f"launch.{name}", *map(str, words)], cwd=ROOT, stdout=subprocess.DEVNULL)
        if done.returncode:
            raise SystemExit(f"launch.{name} ended with {done.returncode}; see its message above")

    with tempfile.TemporaryDirectory() as folder:
        shards = options.shards
        if shards is None:
            shards = Path(folder) / "shards"
            launch("toy", "--out", f"{folder}/videos", "--train", 64, "--probe", 0, "--val", 0)
            launch("shards", "--videos", f"{folder}/videos/train", "--out", shards, "--size", 84)
            launch("labels", "--shards", shards, "--centers", 16, "--labels", 3)
        settings = {
            "batches.shards": shards.resolve(),
            "train.steps": options.steps,
            "train.log_every": 5,
            "train.log_images": 0,
        }
        words = [f"--config.{key}={value}" for key, value in settings.items()]
        launch("train", f"--config={options.config}", f"--workdir={folder}/run", *words)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    found = {
        name: statistics.median(line[name] for line in lines) for name in ("host_share", "host_wait", "data_wait", "step_ms")
    }
    print(
        f"{len(lines)} lines of {options.steps} steps of {options.config}, {found['step_ms']:.0f} ms each: host at work "
        f"{found['host_share']:.2%} (target: below {MOST_HOST:.0%}), device waiting for it {found['host_wait']:.2%}, for data "
        f"{found['data_wait']:.2%}"
    )
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4, help="clips of a step")
    parser.add_argument("--loss", nargs="+", choices=["margin_softmax", "sigmoid"], default=["margin_softmax", "sigmoid"])
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", choices=["torch", "margin_softmax", "sigmoid"], help=argparse.SUPPRESS)
    parser.add_argument("--loop", action="store_true", help="the host's share in a run of `ove train`")
    parser.add_argument("--config", default="configs/toy.py", help="of the run")
    parser.add_argument("--shards", type=Path, help="what it is trained on")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    if options.loop:
        real_loop(options)
        return
    sizes = QUICK if options.quick else FULL
    if options.serve:
        serve(options, sizes)
        return
    if not options.quick:
        need("torch")
    trainers = {kind: Other(kind, options) for kind in (*(["torch"] if has("torch") else []), *options.loss)}
    taken: dict[str, list[dict[str, float]]] = {kind: [] for kind in trainers}
    for turn in range(options.rounds + 1):
        for kind, trainer in trainers.items():
            one = trainer()
            if turn:  # the first step warms up
                taken[kind].append(one)
    for trainer in trainers.values():
        trainer.end()
    middle = {kind: statistics.median(one["seconds"] for one in steps) for kind, steps in taken.items()}
    found: dict[str, Any] = {
        "bench": "train",
        "quick": options.quick,
        "sizes": sizes,
        "batch": options.batch,
        "accumulate": options.accumulate,
        "seconds": middle,
    }
    for kind, seconds in middle.items():
        print(f"{kind:16}{1000 * seconds:10.0f} ms a step{options.batch / seconds:10.3f} samples/s")
    for kind in options.loss:
        host = statistics.median(one["host"] / one["seconds"] for one in taken[kind])
        found[kind] = {"times_torch": middle["torch"] / middle[kind] if "torch" in middle else None, "host": host}
        print(f"{kind}: host {host:.2%} (target: below {MOST_HOST:.0%})")
        if "torch" in middle:
            print(f"torch to {kind}: {middle['torch'] / middle[kind]:.2f} (target: at least {LEAST_FASTER})")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
