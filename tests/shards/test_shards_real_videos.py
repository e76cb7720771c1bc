"""Real videos become shards in all three forms, which agree with each other and pass every check."""

from pathlib import Path

import numpy as np

from launch import shards as command
from ove.shards.schema import decode_frames, decode_mosaics
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify


def test_real_videos_in_all_forms(real_videos: list[Path], tmp_path: Path) -> None:
    out, videos = tmp_path / "shards", tmp_path / "videos"
    videos.mkdir()
    for path in real_videos:
        (videos / path.name).symlink_to(path)
    arguments = ["--videos", str(videos), "--out", str(out), "--store", "frames,h264,mosaics"]
    assert command.main([*arguments, "--size", "112", "--budget", "512", "--workers", "0"]) == 0
    shards = ShardSet.open(out)
    assert [shards.video(n).key for n in range(len(shards))] == [path.name for path in real_videos]
    found = verify(out, decode=True)
    assert not found.problems and found.records == len(real_videos)
    for number in range(len(shards)):
        record = shards.video(number)
        assert record.source == "bitstream" and record.n_decoded >= 64
        which = [0, 31, 63]
        jpeg, h264 = (decode_frames(record, which, form).astype(float) for form in ("frames", "h264"))
        assert np.abs(jpeg - h264).mean() < 6  # of 255: both are lossy, and H.264 halves the colours
        assert decode_mosaics(record).shape == (512, 588) and len(record.mosaic_flat) == 512
        assert 0 <= record.saliency.min() < record.saliency.max() <= 1
