"""`ove import_tfio URI… --image COLUMN --out DIR`: writes shards of data sets that TensorFlow can read.

TFRecord, Parquet, Avro, LMDB and HDF5 files, and single files, on s3:// and the other file systems of tensorflow-io.
TensorFlow is in an environment of its own (`.venv-tfio`, installed on first use). Other arguments go to `ove shards`.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from ove.errors import BadClip, BadShard, ConfigError
from ove.files import digest, only_writer, write_json
from ove.paths import not_found, output_folder, uri_of
from ove.shards.manifest import read_manifest

from . import shards
from .cli.command import command_parser, run_command
from .cli.numbers import number
from .tensorflow_environment.install import ENVIRONMENT, environment
from .tensorflow_environment.supervise import read_inputs, read_progress

FORMAT_ENDINGS = {
    "tfrecord": (".tfrecord", ".tfrecords", ".tfrec"),
    "parquet": (".parquet",),
    "avro": (".avro",),
    "lmdb": (".lmdb", ".mdb"),
    "hdf5": (".h5", ".hdf5"),
    "files": (".jpg", ".jpeg", ".png", ".webp", ".mp4", ".mkv", ".webm", ".mov", ".avi"),
}
"""Endings of names, by format."""
FIXED_COLUMNS = {"lmdb": "value", "files": "bytes"}
"""The only column that these formats have."""
IMPORTED = "import.json"
"""Describes what a folder of shards was imported from; written last."""
_RECORDS_PER_PART, _BYTES_PER_PART = 1000, 256 << 20


def main(arguments: list[str] | None = None) -> int:
    """Writes shards of the inputs, unless they were imported before; returns 0 if they contain a record."""
    options, of_shards = _parser().parse_known_args(arguments)
    options.out = output_folder(options.out, "--out", options.inputs)
    for name in options.inputs:
        if not (uri_of(name) or set(name) & set("*?[") or os.path.exists(name)):
            raise BadClip(not_found(name))
    with only_writer(options.out / IMPORTED):
        return _import(options, of_shards)


def _import(options: argparse.Namespace, of_shards: list[str]) -> int:
    """Reads the inputs and writes the shards; returns 0 if they contain a record."""
    job = make_job(options)
    job["digest"] = digest({**job, "files": [_stamp(uri) for uri in job["inputs"]]})
    made_of = {**job, "shards": of_shards}
    if _imported(options.out, made_of):
        print(f"{options.out}: holds these inputs already; delete {options.out / IMPORTED} to read them again.")
        return 0
    if "--replace" not in of_shards:
        _check_inputs(options.out, job["inputs"])
    work = options.out / ".import"
    (work / "parts").mkdir(parents=True, exist_ok=True)
    progress = read_progress(work)
    if not progress.get("finished") or progress["digest"] != job["digest"]:
        python = environment(options.environment.absolute(), print)
        read_inputs(python, work, job, options.stall, print)
    code = shards.main([f"--{job['kind']}s", str(work / "parts"), "--out", str(options.out), *of_shards])
    fingerprint = read_manifest(options.out).fingerprint
    write_json(options.out / IMPORTED, {**made_of, "fingerprint": fingerprint})
    shutil.rmtree(work)
    return code


def make_job(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the job of the process with TensorFlow; ConfigError for options that do not fit."""
    form = options.format or format_of(options.inputs)
    if (options.image is None) == (options.video is None) and form not in FIXED_COLUMNS:
        raise ConfigError("give either --image COLUMN or --video COLUMN: the column that holds the encoded pictures or videos.")
    kind = "video" if options.video is not None else "image"
    data = options.video if options.video is not None else options.image
    if form in FIXED_COLUMNS:
        fixed = FIXED_COLUMNS[form]
        if data not in (None, fixed) or options.label or options.key:
            raise ConfigError(
                f"--format {form} has one column, {fixed}: give --image {fixed} or --video {fixed}, and neither --label nor "
                "--key (keys and, of files, labels come from the names)."
            )
        data = fixed
    return {
        "format": form,
        "inputs": [uri if "://" in uri else os.path.abspath(uri) for uri in options.inputs],
        "kind": kind,
        "data": data,
        "label": options.label,
        "key": options.key,
        "records_per_part": _RECORDS_PER_PART,
        "bytes_per_part": _BYTES_PER_PART,
    }


def format_of(inputs: list[str]) -> str:
    """Returns the format of all inputs by their endings; ConfigError if they have none, or several."""
    found = set()
    for uri in inputs:
        name = uri.rstrip("/").lower().removesuffix(".gz")
        found.add(next((form for form, endings in FORMAT_ENDINGS.items() if name.endswith(endings)), None))
    if len(found) != 1 or None in found:
        raise ConfigError(
            f"the names of the inputs ({', '.join(inputs[:3])}{' …' if len(inputs) > 3 else ''}) do not tell one format; "
            f"give --format, one of {', '.join(FORMAT_ENDINGS)}."
        )
    return str(found.pop())


def _imported(out: Path, made_of: dict[str, Any]) -> bool:
    """Returns whether the folder contains finished shards of the same import."""
    try:
        about = json.loads((out / IMPORTED).read_text(encoding="utf-8"))
        return about == {**made_of, "fingerprint": read_manifest(out).fingerprint}
    except (FileNotFoundError, ValueError, BadShard):
        return False


def _check_inputs(out: Path, inputs: list[str]) -> None:
    """Raises ConfigError if the folder contains shards of the import of other inputs."""
    try:
        before = json.loads((out / IMPORTED).read_text(encoding="utf-8"))["inputs"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return
    if not set(before) & set(inputs):
        raise ConfigError(
            f"{out}: holds shards of {', '.join(map(str, before[:3]))}, not of {', '.join(inputs[:3])}; give another --out, or "
            "--replace to delete them."
        )


def _stamp(uri: str) -> list[int] | None:
    """Returns size and date of a local input; None for a remote one."""
    if "://" in uri or not os.path.exists(uri):
        return None
    stat = os.stat(uri)
    return [stat.st_size, stat.st_mtime_ns]


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("import_tfio", __doc__, allow_abbrev=False)
    add = parser.add_argument
    add("inputs", nargs="+", metavar="URI", help="files, folders (LMDB), s3://… and so on; * and ? as in a shell")
    add("--format", choices=sorted(FORMAT_ENDINGS), help="default: what the names end in")
    add("--image", metavar="COLUMN", help="the column of encoded pictures (HDF5: or of pixels); of structs: a.b")
    add("--video", metavar="COLUMN", help="the column of whole video files")
    add("--label", metavar="COLUMN", help="the column of class names or numbers")
    add("--key", metavar="COLUMN", help="a column that names the record; it becomes part of the key")
    add("--out", type=Path, required=True, help="folder for the shards")
    add(
        "--stall",
        type=number(0, above=True, of=float),
        default=600,
        metavar="S",
        help="longest time without progress (600)",
    )
    add("--environment", type=Path, default=ENVIRONMENT, metavar="DIR", help="where TensorFlow is (.venv-tfio)")
    return parser


if __name__ == "__main__":
    run_command(main)
