"""An address among the inputs is refused as one, whole, and is not taken for a local path."""

from pathlib import Path

import pytest

import ove
from ove.config import ShardsConfig
from ove.errors import BadClip
from ove.sources.folders import files_in_list
from ove.sources.images import read_image
from ove.sources.inputs import find_inputs
from ove.sources.lists import rows_of_list
from ove.video.decode import read_video

WORDS = "s3://bucket/a.mp4: is an address, and inputs are read from this machine only; copy it here"


def test_a_source_at_an_address_is_named_whole(tmp_path: Path) -> None:
    with pytest.raises(BadClip, match=r"^s3://bucket/videos: is an address"):
        find_inputs(Path("s3://bucket/videos"), "video", ShardsConfig(), tmp_path)


@pytest.mark.parametrize("name", ["list.csv", "list.txt"])
def test_addresses_in_lists_stay_what_they_are(tmp_path: Path, name: str) -> None:
    is_table = name == "list.csv"
    (tmp_path / name).write_text("path,label\ns3://bucket/a.mp4,x\n" if is_table else "s3://bucket/a.mp4\n")
    found = rows_of_list(tmp_path / name) if is_table else files_in_list(tmp_path / name)
    files = found if isinstance(found, list) else found.files
    for read in (read_video, read_image):
        with pytest.raises(BadClip, match=f"^{WORDS}"):
            read(files[0].path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ove.OveError, match=r"is a folder; give one file\. ove\.split, ove\.write_shards"):
        ove.read(tmp_path)


def test_the_version_is_that_of_the_package() -> None:
    assert ove.__version__.count(".") >= 2
