"""The quickstart on several seeds: does the codec's choice of patches beat frames, and training beat no training?

python bench/toy_seeds.py [--seeds 0 1 2] [--out DIR] [--quick]; the last line is one JSON object: top-1 by name, mean and per
seed, and the two margins that matter. --quick: one seed of the smoke run, to see that it works; its scores mean nothing, and
without --out they are not kept.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the seeds one after the other and prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="runs/toy_seeds, with --quick a temporary folder")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or (Path(temporary) if arguments.quick else ROOT / "runs" / "toy_seeds")
        reports = [_run(out / f"{'smoke' if arguments.quick else 'seed'}_{seed}", seed, arguments.quick) for seed in seeds]
    scores = {name: [report["probe"][name] for report in reports] for name in reports[0]["probe"]}
    mean = {name: statistics.mean(values) for name, values in scores.items()}
    print(
        json.dumps(
            {
                "bench": "toy_seeds",
                "quick": arguments.quick,
                "seeds": seeds,
                "budget_tokens": reports[0]["budget_tokens"],
                "top1_mean": mean,
                "top1": scores,
                "codec_minus_frames": mean["codec"] - mean["frames"],
                "trained_minus_untrained": {m: mean[m] - mean[f"untrained_{m}"] for m in ("codec", "frames")},
                "seconds": [sum(report["seconds"].values()) for report in reports],
            }
        )
    )


def _run(out: Path, seed: int, quick: bool) -> dict:
    command = [sys.executable, "-m", "launch.quickstart", "--out", str(out), "--seed", str(seed)]
    subprocess.run(command + (["--smoke"] if quick else []), cwd=ROOT, check=True, stdout=sys.stderr)
    return json.loads((out / "report.json").read_text())


if __name__ == "__main__":
    main()
