"""Names of files that are not UTF-8 are used like any other, with escapes where text is needed."""

import io
import json
import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from shards_material import write_video
from source_files import read_quarantine

from launch import shards as command
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile

LATIN1 = "caf\udce9"
ESCAPED = r"caf\udce9"


def _records(out: Path) -> list[tuple[str, str | None]]:
    shards = ShardSet.open(out)
    return [(shards.record(index).key, shards.record(index).label) for index in range(len(shards))]


def test_keys_and_class_names_are_text() -> None:
    file = InputFile(Path(LATIN1), LATIN1, LATIN1)
    assert (file.key, file.label, file.name) == (ESCAPED, ESCAPED, ESCAPED) and os.fsencode(file.path) == b"caf\xe9"


@pytest.mark.parametrize("kind", ["videos", "images"])
def test_shards_of_files_and_folders_with_such_names(tmp_path: Path, kind: str) -> None:
    source, out, ending = tmp_path / "v", tmp_path / "s", ".mp4" if kind == "videos" else ".png"
    for place in (f"ok/{LATIN1}", f"{LATIN1}/ok"):
        plain = tmp_path / f"plain{ending}"
        if kind == "videos":
            write_video(plain, seed=1)
        else:
            cv2.imwrite(str(plain), np.zeros((32, 32, 3), np.uint8))
        (source / place).parent.mkdir(parents=True, exist_ok=True)
        plain.rename(source / f"{place}{ending}")
    (source / "ok" / f"bad{LATIN1}{ending}").write_text("<html>")
    words = [f"--{kind}", str(source), "--out", str(out), "--workers", "0", "--size", "56", "--frames", "8", "--gop", "4"]
    for _ in range(2):
        assert command.main(words) == 0
        assert _records(out) == [(f"{ESCAPED}/ok{ending}", ESCAPED), (f"ok/{ESCAPED}{ending}", "ok")]
        (bad,) = read_quarantine(out / "quarantine.jsonl")
        assert bad.file == f"{source}/ok/bad{ESCAPED}{ending}"
    json.loads((out / "manifest.json").read_bytes().decode("utf-8"))


def test_shards_of_a_tar_with_such_names(tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.zeros((32, 32, 3), np.uint8))[1].tobytes()
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in ((f"{LATIN1}.png", picture), (f"{LATIN1}.cls", b"dog"), ("b\udcff.cls", b"cat")):
            about = tarfile.TarInfo(name)
            about.size = len(data)
            tar.addfile(about, io.BytesIO(data))
    assert command.main(["--images", str(tmp_path / "a.tar"), "--out", str(tmp_path / "s"), "--workers", "0"]) == 0
    assert _records(tmp_path / "s") == [(f"a.tar/{ESCAPED}", "dog")]
    (bad,) = read_quarantine(tmp_path / "s" / "quarantine.jsonl")
    assert r"b\udcff" in bad.reason
