"""Writes duplicates as a page with pictures, as JSON, and as lists for later steps."""

import base64
import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Int64, UInt8

from ove.files import atomic_write, write_array, write_json, write_text
from ove.labels.dedup import Duplicates

SETS_SHOWN = 40
"""Half of them the largest, half spread over the rest."""
_PICTURES_SHOWN = 8
_HEIGHT_PX, _WIDTH_PX = 120, 480
_STYLE = "body{font:15px sans-serif;margin:2em} img{margin:2px} .kept{outline:3px solid #2a7}"
ReadPicture = Callable[[int], tuple[str, UInt8[np.ndarray, "H W 3"]]]
"""Index of a sample → its key and its picture."""


def write_report(
    found: Duplicates, records: Int64[np.ndarray, "N"], settings: dict[str, Any], look: ReadPicture, out: Path
) -> None:
    """Writes `duplicates.json` (counts, sizes of sets, some sets with keys and cosines) and `duplicates.html` into `out`.

    `records`: index of each sample in its shard set.
    """
    sizes = np.array([len(members) for members in found.sets], np.int64)
    chosen = _chosen(len(found.sets))
    shown = [_describe(found, records, number, look) for number in chosen]
    counts = {
        "samples": len(found.keep),
        "kept": int(found.keep.sum()),
        "dropped": int((~found.keep).sum()),
        "pairs": len(found.pairs),
        "sets": len(found.sets),
        "sets_by_size": {int(size): int(n) for size, n in zip(*np.unique(sizes, return_counts=True), strict=True)},
    }
    sets = [{"size": s["size"], "samples": s["samples"]} for s in shown]
    write_json(out / "duplicates.json", {**counts, **settings, "some_sets": sets})
    write_text(out / "duplicates.html", _page(counts, settings, shown))


def write_lists(
    found: Duplicates, records: Int64[np.ndarray, "N"], n_records: int, key: Callable[[int], str], out: Path
) -> None:
    """Writes `kept.npy` (bool, for each record of the shard set) and `dropped.jsonl`: each dropped sample and its kept one."""
    keep = np.ones(n_records, bool)
    keep[records[~found.keep]] = False
    write_array(out / "kept.npy", keep)
    with atomic_write(out / "dropped.jsonl") as temporary, temporary.open("w", encoding="utf-8") as handle:
        for members in found.sets:
            kept = key(int(records[members[0]]))
            for member in members[1:]:
                line = {"record": int(records[member]), "key": key(int(records[member])), "kept": kept}
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")


def read_kept(out: Path, n_records: int) -> Bool[np.ndarray, "N"] | None:
    """Reads which records are kept (`write_lists`); None if duplicates have not been searched for."""
    if not (out / "kept.npy").is_file():
        return None
    keep = np.load(out / "kept.npy")
    return keep if len(keep) == n_records else None


def _chosen(n_sets: int) -> list[int]:
    largest = min(SETS_SHOWN // 2, n_sets)
    others = np.linspace(largest, n_sets - 1, SETS_SHOWN - largest).astype(int) if largest < n_sets else np.arange(0)
    return sorted({*range(largest), *others.tolist()})


def _describe(found: Duplicates, records: Int64[np.ndarray, "N"], number: int, look: ReadPicture) -> dict[str, Any]:
    members = found.sets[number]
    mine = np.isin(found.pairs, members).all(1)
    samples, pictures = [], []
    for member in members[:_PICTURES_SHOWN].tolist():
        cosines = found.cosines[mine & (found.pairs == member).any(1)]
        key, picture = look(int(records[member]))
        samples.append({"record": int(records[member]), "key": key, "highest_cosine": round(float(cosines.max()), 4)})
        pictures.append(picture)
    return {"size": len(members), "samples": samples, "pictures": pictures}


def _page(counts: dict[str, Any], settings: dict[str, Any], shown: Sequence[dict[str, Any]]) -> str:
    title = f"{counts['dropped']:,} of {counts['samples']:,} samples show what others show"
    about = html.escape(", ".join(f"{name} {value}" for name, value in settings.items()))
    parts = [
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>",
        f"<p>{counts['sets']:,} sets, of which {len(shown)} are shown; framed is what is kept. {about}</p>",
    ]
    for entry in shown:
        for place, (sample, picture) in enumerate(zip(entry["samples"], entry["pictures"], strict=True)):
            words = html.escape(f"{sample['key']} ({sample['highest_cosine']})", quote=True)
            kept = ' class="kept"' if place == 0 else ""
            parts.append(f'<img{kept} title="{words}" alt="{words}" src="{_inlined(picture)}">')
        more = entry["size"] - len(entry["samples"])
        parts.append(f"<p>{entry['size']} samples{f', {more} of them not shown' if more else ''}</p>")
    return "\n".join(parts)


def _inlined(picture: UInt8[np.ndarray, "H W 3"]) -> str:
    height, width = picture.shape[:2]
    scale = min(_HEIGHT_PX / height, _WIDTH_PX / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
