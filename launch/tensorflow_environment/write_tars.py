"""`python -m launch.tensorflow_environment.write_tars JOB.json`: rows of TensorFlow's readers → WebDataset tars, part by part.

Run by `ove import_tfio` with the interpreter of `.venv-tfio`. `progress.json` names a part once it is on the disk under its
name; an interrupted run resumes after the last part. The exit code means nothing: tensorflow-io aborts at exit after using s3://.
"""

import ctypes
import glob
import io
import json
import os
import signal
import sys
import tarfile
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# Multi-part downloads return wrong bytes for reads within a file on s3://: Avro files without records, and crashes.
os.environ.setdefault("S3_DISABLE_MULTI_PART_DOWNLOAD", "1")

import tensorflow as tf

from .readers import READERS, CannotRead, Columns, Row

_PR_SET_PDEATHSIG = 1
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"\x1aE\xdf\xa3": "mkv", b"FLV": "flv"}
_RIFF = {b"WEBP": "webp", b"AVI ": "avi"}
_PLAIN = {"image": "jpg", "video": "mp4"}
"""Extensions of unrecognised bytes; whoever decodes them finds out what they are."""


def main(job_file: str) -> int:
    """Does the job in the file's folder; returns 0 when done, 2 if the data set does not fit it (reason in error.json)."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    os.chdir(Path(job_file).parent)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _import(job)
    except (CannotRead, tf.errors.OpError, OSError) as error:
        doing = _doing_now()
        message = str(error) if isinstance(error, CannotRead) else f"{doing}: {_plain(error)}"
        _publish("error.json", json.dumps({"message": message}).encode())
        return 2
    return 0


def _import(job: dict[str, Any]) -> None:
    progress = _read_progress(job["digest"])
    _doing("looking for the input files")
    uris = progress["uris"] or [uri for pattern in job["inputs"] for uri in _matching(pattern)]
    progress["uris"] = uris
    columns = Columns(job["data"], job["label"], job["key"])
    with closing(_rows(job["format"], uris, columns, progress["input"], progress["row"])) as rows:
        while _write_part(rows, progress, job):
            pass
    progress["finished"] = True
    _publish("progress.json", json.dumps(progress).encode())


def _rows(form: str, uris: list[str], columns: Columns, number: int, row: int) -> Generator[tuple[int, int, Row], None, None]:
    """Yields (number of the input, number of the row in it, row) from a place on, through all inputs."""
    for n in range(number, len(uris)):
        first = row if n == number else 0
        for place, found in enumerate(READERS[form](uris[n], columns, first, _doing), first):
            yield n, place, found


def _matching(pattern: str) -> list[str]:
    """Returns the files or folders that a path, URI or pattern names, sorted; CannotRead if there are none."""
    if not glob.has_magic(pattern):
        return [pattern]
    found = sorted(tf.io.gfile.glob(pattern))
    if not found:
        raise CannotRead(f"{pattern}: matches no file; check the address, and the rights to list it.")
    return found


def _write_part(rows: Iterator[tuple[int, int, Row]], progress: dict[str, Any], job: dict[str, Any]) -> bool:
    """Writes the next part, of limited records and bytes; returns False if no row is left."""
    name = f"parts/part-{len(progress['parts']):05d}.tar"
    temporary = f"{name}.tmp"
    count = size = 0
    with tarfile.open(temporary, "w") as tar:
        for number, place, row in rows:
            _add(tar, progress["records"] + count, row, job["kind"])
            progress.update(input=number, row=place + 1)
            count += 1
            size += len(row.data)
            if count >= job["records_per_part"] or size >= job["bytes_per_part"]:
                break
    if not count:
        os.unlink(temporary)
        return False
    _into_place(temporary, name)
    progress["parts"].append({"file": name, "records": count, "bytes": os.path.getsize(name)})
    progress["records"] += count
    _publish("progress.json", json.dumps(progress).encode())
    return True


def _add(tar: tarfile.TarFile, place: int, row: Row, kind: str) -> None:
    """Adds a sample: number and key as name, its data, and its label as `.cls`."""
    key = "" if row.key is None else "_" + quote(_word(row.key).strip("/"), safe="/").replace(".", "%2E")
    members = [(_extension(row.data, kind), row.data)]
    if row.label is not None and _word(row.label):
        members.append(("cls", _word(row.label).encode()))
    for extension, data in members:
        member = tarfile.TarInfo(f"{place:09d}{key}.{extension}")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))


def _word(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        return value
    try:
        if int(value) == value:
            return str(int(value))
    except (TypeError, ValueError, OverflowError):
        pass
    raise CannotRead(f"{_doing_now()}: the label or key {value!r:.80} is neither a word nor a whole number.")


def _extension(data: bytes, kind: str) -> str:
    for magic, extension in _MAGIC.items():
        if data.startswith(magic):
            return extension
    return _RIFF.get(data[8:12], _PLAIN[kind])


def _read_progress(digest: str) -> dict[str, Any]:
    """Returns what an earlier run of the same job finished; removes leftovers."""
    fresh = {"digest": digest, "uris": [], "input": 0, "row": 0, "records": 0, "parts": [], "finished": False}
    path = Path("progress.json")
    progress: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else fresh
    if progress["digest"] != digest:
        progress = fresh
    Path("error.json").unlink(missing_ok=True)
    Path("parts").mkdir(exist_ok=True)
    kept = {part["file"] for part in progress["parts"]}
    for file in Path("parts").iterdir():
        if file.as_posix() not in kept:
            file.unlink()
    return progress


def _doing(what: str) -> None:
    # Survives even if the next instruction kills this process.
    Path("doing.txt").write_text(what, encoding="utf-8")


def _doing_now() -> str:
    return Path("doing.txt").read_text(encoding="utf-8")


def _plain(error: Exception) -> str:
    """Returns the first line of TensorFlow's message, without the graph node."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].rpartition("}} ")[2].strip() or type(error).__name__


def _publish(name: str, data: bytes) -> None:
    temporary = f".{name}.tmp"
    Path(temporary).write_bytes(data)
    _into_place(temporary, name)


def _into_place(temporary: str, name: str) -> None:
    """Renames a finished file, syncing its bytes before and its name after."""
    _sync(temporary)
    os.replace(temporary, name)
    _sync(os.path.dirname(name) or ".")


def _sync(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
