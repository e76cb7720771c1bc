"""Measures the difference of published-format encoders from the outputs of the PyTorch code.

python bench/golden.py [FOLDER…] [--quick]; without folders those of ../shared/golden/onevision_encoder, with --quick the first.

A folder holds config.json, model.safetensors and io.npz, whose keys are CASE/pixel_values ([B, 3, H, W] or [B, 3, T, H, W]),
CASE/patch_positions or CASE/visible_indices where a case has them, and the outputs CASE/last_hidden_state, CASE/pooler_output
and CASE/hidden_state_1 (after the first block). Prints ‖ours − theirs‖ / ‖theirs‖ in float32 and in bfloat16;
the last line is one JSON object.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ove.encoder import published
from ove.encoder.encoder import Encoded, Encoder

ROOT = Path(__file__).resolve().parents[1]
OUTPUTS = ("hidden_state_1", "last_hidden_state", "pooler_output")
DTYPES = ("float32", "bfloat16")


def main() -> None:
    """Prints a table with a line for each folder and case, and the largest of each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="the first folder")
    options = parser.parse_args()
    shared = ROOT.parent / "shared" / "golden" / "onevision_encoder"
    folders = options.folders or sorted(path.parent for path in shared.glob("*/io.npz"))
    if not folders:
        parser.error("no folders: name some (../shared/golden/onevision_encoder is not there)")
    folders = folders[:1] if options.quick else folders
    print("| folder, case | " + " | ".join(f"{name}, {dtype}" for dtype in DTYPES for name in OUTPUTS) + " |")
    print("|---" * (1 + len(DTYPES) * len(OUTPUTS)) + "|")
    names = [f"{name}, {dtype}" for dtype in DTYPES for name in OUTPUTS]
    found: dict[str, dict[str, float | None]] = {}
    worst = np.zeros(len(DTYPES) * len(OUTPUTS))
    for folder in folders:
        models = [published.load(folder, dtype) for dtype in DTYPES]
        io = dict(np.load(folder / "io.npz"))
        for case in sorted({name.split("/")[0] for name in io}):
            errors = [error for model in models for error in errors_of(model, io, case)]
            worst = np.fmax(worst, errors)
            found[f"{folder.name}, {case}"] = {n: None if np.isnan(e) else e for n, e in zip(names, errors, strict=True)}
            print(f"| {folder.name}, {case} | " + " | ".join("–" if np.isnan(e) else f"{e:.1e}" for e in errors) + " |")
    print("| largest | " + " | ".join(f"{error:.1e}" for error in worst) + " |")
    largest = dict(zip(names, worst.tolist(), strict=True))
    print(json.dumps({"bench": "golden", "quick": options.quick, "errors": found, "largest": largest}))


def errors_of(model: Encoder, io: Mapping[str, np.ndarray], case: str) -> list[float]:
    """Relative errors of the three outputs; NaN for one that the case does not have."""
    seen = encoded(model, io, case)
    assert seen.hidden is not None
    ours = (seen.hidden.before_post_norm[0], seen.tokens, seen.pooled)
    errors = []
    for name, value in zip(OUTPUTS, ours, strict=True):
        theirs = io.get(f"{case}/{name}")
        errors.append(float("nan") if theirs is None or value is None else relative(np.asarray(value, np.float32), theirs))
    return errors


def encoded(model: Encoder, io: Mapping[str, np.ndarray], case: str) -> Encoded:
    """Encodes a case's inputs, from pixels."""
    pixels = np.moveaxis(io[f"{case}/pixel_values"], 1, -1)
    return model.from_pixels(
        pixels,
        visible=io.get(f"{case}/visible_indices"),
        positions=io.get(f"{case}/patch_positions"),
        frame_positions=np.arange(pixels.shape[1]) if pixels.ndim == 5 and f"{case}/visible_indices" not in io else None,
        return_hidden_states=True,
    )


def relative(ours: Float[np.ndarray, "..."], theirs: Float[np.ndarray, "..."]) -> float:
    """‖ours − theirs‖ / ‖theirs‖."""
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


if __name__ == "__main__":
    main()
