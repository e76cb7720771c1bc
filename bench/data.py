"""Measures the cost of the pipeline on top of bare decoding: records/s, CPU-ms a record, and memory over a long run.

python bench/data.py [FILE…] [--rounds 5] [--records 20000] [--quick]; videos, without any those of ../shared/videos, are the
material: clips of 64 frames at 224 px, and single frames as pictures (JPEG, quality 90). Pictures usually are larger than what
is seen of them: here frames as they are for 224², and four times that (2 × 2) for 448²; those that are stored at just the size
seen, the least favourable case, stand beside them. For each form, decoding and the pipeline take turns, both with two threads.
Decoding is the same decoder called on the same bytes and nothing else: for mosaics all of them, for H.264 all frames as RGB,
for JPEG frames those that are needed. The pipeline reads, unpacks, decodes, selects, augments, cuts into patches and makes
batches. Then the pipeline alone runs over --records records, clips and pictures in turn, and tells its memory. The last line
is one JSON object; --quick: a round, 2,000 records. Exit code 1 if a form costs more than 1.3 times the CPU of decoding, those
stored at the size seen left aside, or memory grows by more than 50 MiB; with --quick, which measures too little for that, 0.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ove.config import BatchesConfig, HeadConfig, SelectionConfig, ShardsConfig, VideoConfig  # noqa: E402
from ove.records import Saliency  # noqa: E402
from ove.shards.h264_clip import decode_clip  # noqa: E402
from ove.shards.labels import write_labels  # noqa: E402
from ove.shards.make import RecordMaker  # noqa: E402
from ove.shards.schema import ImageRecord, Record, VideoRecord  # noqa: E402
from ove.shards.shard_set import ShardSet  # noqa: E402
from ove.shards.write import write_shards  # noqa: E402
from ove.sources.folders import InputFile  # noqa: E402
from ove.stream.batch_pipeline import Pipeline  # noqa: E402
from ove.stream.modes import TokenView  # noqa: E402

THREADS = 2
CLIPS, PICTURES, CENTERS, LABELS = 12, 96, 1000, 10
_LIMIT = 1.3
"""Targets: CPU and time of the pipeline over those of bare decoding."""
_SHARES = {"codec": (1.0, 0.0, 0.0), "frames": (0.0, 1.0, 0.0)}


@dataclass(frozen=True)
class Case:
    """One form of records in one mode."""

    name: str
    folder: Path
    mode: str
    batch: int
    batches: int
    """Records per measurement."""
    bare: Callable[[Record], object]


def main() -> int:
    """Measures and prints; 1 if a case misses its target, or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--quick", action="store_true", help="one round, 2,000 records")
    options = parser.parse_args()
    rounds, records = (1, 2000) if options.quick else (options.rounds, options.records)
    files = options.files or sorted((ROOT.parent / "shared" / "videos").glob("*.mp4"))
    if not files:
        parser.error("no videos: name some, or put them into ../shared/videos")
    with tempfile.TemporaryDirectory() as folder:
        cases = _cases(Path(folder), files)
        found = {case.name: _compare(case, rounds) for case in cases}
        _print(found)
        resident = _memory(cases[4].folder, cases[0].folder, records)
    print(json.dumps({"bench": "data", "threads": THREADS, "cases": found, "resident_mib": resident}))
    too_dear = [name for name, values in found.items() if values["cpu_ratio"] > _LIMIT and not name.startswith("stored at")]
    return int(not options.quick and (bool(too_dear) or resident[-1] - resident[0] > 50))


def _cases(folder: Path, files: Sequence[Path]) -> list[Case]:
    clips = {
        "mosaics": _clips(folder / "mosaics", files, ("h264", "mosaics")),
        "h264": _clips(folder / "h264", files, ("h264",)),
        "frames": _clips(folder / "frames", files, ("frames",)),
    }
    frames = _frames(files)
    pictures = {
        "image 224²": _pictures(folder / "pictures", frames),
        "image 448²": _pictures(folder / "large", [np.tile(frame, (2, 2, 1)) for frame in frames]),
        "stored at 224²": _pictures(folder / "pictures224", [cv2.resize(frame, (224, 224)) for frame in frames]),
        "stored at 448²": _pictures(folder / "pictures448", [cv2.resize(frame, (448, 448)) for frame in frames]),
    }
    return [
        *(Case(name, place, "image", 32, 20, _decode_image) for name, place in pictures.items()),
        Case("codec, mosaics", clips["mosaics"], "codec", 16, 20, _decode_mosaics),
        Case("codec, H.264", clips["h264"], "codec", 8, 6, _decode_h264),
        Case("codec, JPEG frames", clips["frames"], "codec", 8, 8, _decode_selected),
        Case("8 frames, JPEG frames", clips["frames"], "frames", 16, 20, _decode_eight),
    ]


def _clips(folder: Path, files: Sequence[Path], store: tuple[str, ...]) -> Path:
    """A labelled set of the videos' clips, each several times."""
    shards = ShardsConfig(store=store, workers=0)
    maker = RecordMaker("video", VideoConfig(), shards, folder)
    made = {path: maker(InputFile(path, path.name, None)) for path in files}
    inputs = [InputFile(files[number % len(files)], f"{number:04d}", None) for number in range(CLIPS)]
    write_shards(inputs, folder, lambda file: replace(made[file.path], key=file.key), shards, {}, lambda progress: None)
    return _labelled(folder, "vid", CLIPS)


def _frames(files: Sequence[Path]) -> list[np.ndarray]:
    """Frames spread over the videos, BGR, as they are."""
    frames = []
    for path in files:
        with av.open(str(path)) as container:
            decoded = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        frames += [decoded[place] for place in np.linspace(0, len(decoded) - 1, PICTURES // len(files)).astype(int)]
    return frames


def _pictures(folder: Path, pictures: Sequence[np.ndarray]) -> Path:
    """A labelled set of pictures."""
    inputs = [InputFile(folder, f"{number:04d}", None) for number in range(len(pictures))]

    def make(file: InputFile) -> ImageRecord:
        picture = pictures[int(file.key)]
        data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        return ImageRecord(file.key, data, *picture.shape[:2])

    write_shards(inputs, folder, make, ShardsConfig(workers=0), {}, lambda progress: None)
    return _labelled(folder, "obj", len(pictures))


def _labelled(folder: Path, bank: str, count: int) -> Path:
    labels = np.random.default_rng(0).integers(0, CENTERS, (count, LABELS), dtype=np.int32)
    write_labels(folder, bank, labels, None, {}, n_centers=CENTERS)
    return folder


def _decode_image(record: ImageRecord) -> None:
    cv2.imdecode(np.frombuffer(record.image, np.uint8), cv2.IMREAD_COLOR_RGB)


def _decode_mosaics(record: VideoRecord) -> None:
    for data in record.mosaics:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _decode_h264(record: VideoRecord) -> None:
    decode_clip(record.h264, len(record.frame_index), record.size_px, range(len(record.frame_index)))


def _decode_selected(record: VideoRecord) -> None:
    flat = TokenView(2048, SelectionConfig(gop_frames=32)).choose(Saliency(record.saliency.astype(np.float32)))
    for index in np.unique(flat // (record.grid_tyx[1] * record.grid_tyx[2])):
        cv2.imdecode(np.frombuffer(record.frames[index], np.uint8), cv2.IMREAD_COLOR_RGB)


def _decode_eight(record: VideoRecord) -> None:
    for data in record.frames[::8]:
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def _compare(case: Case, rounds: int) -> dict[str, float]:
    """Medians over the rounds, and the median of the ratios within a round."""
    shards = ShardSet.open(case.folder)
    records = [shards.record(number) for number in range(len(shards))]
    pipeline = Pipeline(_config(case))
    bare, through = [], []
    for _ in range(rounds):
        bare.append(_bare(case, records))
        for _ in range(2 * THREADS):  # what was made ahead meanwhile
            next(pipeline)
        through.append(_measured(lambda: [next(pipeline) for _ in range(case.batches)], case.batches * case.batch))
        pipeline.close()  # it would work on during the next round of decoding
        pipeline.restore(pipeline.progress)
    ratios = [(there[0] / here[0], there[1] / here[1]) for here, there in zip(bare, through, strict=True)]
    return {
        "bare_per_s": round(1 / statistics.median(wall for wall, _ in bare), 1),
        "bare_cpu_ms": round(1000 * statistics.median(cpu for _, cpu in bare), 3),
        "pipeline_per_s": round(1 / statistics.median(wall for wall, _ in through), 1),
        "pipeline_cpu_ms": round(1000 * statistics.median(cpu for _, cpu in through), 3),
        "time_ratio": round(statistics.median(wall for wall, _ in ratios), 2),
        "cpu_ratio": round(statistics.median(cpu for _, cpu in ratios), 2),
    }


def _bare(case: Case, records: Sequence[Record]) -> tuple[float, float]:
    """Decoding alone, each thread its own half of the records."""
    count = case.batches * case.batch

    def decode(first: int) -> None:
        for number in range(first, count, THREADS):
            case.bare(records[number % len(records)])

    with ThreadPoolExecutor(THREADS) as threads:
        return _measured(lambda: list(threads.map(decode, range(THREADS))), count)


def _measured(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Seconds and CPU seconds a record."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def _config(case: Case) -> BatchesConfig:
    head = HeadConfig("obj" if case.mode == "image" else "vid", case.batch, labels_per_step=LABELS)
    codec, frames, tiling = _SHARES.get(case.mode, (0.5, 0.375, 0.125))
    return BatchesConfig(
        shards=str(case.folder),
        heads=(head,) if head.bank == "vid" else (replace(head, size_px=448 if "448" in case.name else 224),),
        share_codec=codec,
        share_frames=frames,
        share_tiling=tiling,
        threads=THREADS,
    )


def _memory(clips: Path, pictures: Path, records: int) -> list[float]:
    """Resident memory in MiB, after a tenth of the records and at ten places more, the last after all of them."""
    heads = (HeadConfig("vid", 16, shards=(str(clips),)), HeadConfig("obj", 16, shards=(str(pictures),), size_px=224))
    pipeline, resident = (
        Pipeline(BatchesConfig(heads=heads, threads=THREADS, share_codec=1, share_frames=0, share_tiling=0)),
        [],
    )
    places = {round(records / 32 * (0.1 + 0.09 * part)) for part in range(11)}
    for step in range(1, records // 32 + 1):
        next(pipeline)
        if step in places:
            resident.append(round(_resident_mib(), 1))
    pipeline.close()
    print(f"memory over {records} records, MiB: {resident}")
    return resident


def _resident_mib() -> float:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def _print(found: dict[str, dict[str, float]]) -> None:
    print(f"{'':24}{'decode/s':>10}{'CPU-ms':>8}{'pipeline/s':>12}{'CPU-ms':>8}{'time':>7}{'CPU':>6}")
    for name, values in found.items():
        print(
            f"{name:24}{values['bare_per_s']:10.0f}{values['bare_cpu_ms']:8.2f}{values['pipeline_per_s']:12.0f}"
            f"{values['pipeline_cpu_ms']:8.2f}{values['time_ratio']:7.2f}{values['cpu_ratio']:6.2f}"
        )


if __name__ == "__main__":
    sys.exit(main())
