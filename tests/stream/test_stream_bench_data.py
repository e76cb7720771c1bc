"""`ove bench_data` names every stage of every head, and one bottleneck."""

from pathlib import Path

import pytest
from synthetic import BUDGET, GOP

from launch.bench_data import main
from ove.errors import ConfigError

TOY = Path(__file__).resolve().parents[2] / "configs" / "toy.py"


def test_stages_and_bottleneck_are_named(shard_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"shards": shard_folder, "budget_tokens": BUDGET, "selection.gop_frames": GOP, "threads": 1}
    settings = [f"--config.batches.{key}={value}" for key, value in keys.items()]
    main([f"--config={TOY}", "--steps=2", "--samples=8", *settings])
    text = capsys.readouterr().out
    for bank in ("vid", "obj"):
        (line,) = [line for line in text.splitlines() if line.startswith(f"  {bank}: ")]
        assert all(f"{stage} " in line for stage in ("read", "decode", "select", "batch", "all"))
        assert "-" not in line
    assert "the pipeline (1 threads, 0 processes" in text and "device(s): " in text
    assert text.count("bottleneck: ") == 1
    with pytest.raises(ConfigError, match="nothing to measure"):
        main([f"--config={TOY}", *settings, "--config.batches.heads=[]"])
