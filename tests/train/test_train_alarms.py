"""Alarms are given when something begins and when it is over."""

from pathlib import Path

import pytest
from synthetic import write_set
from tiny_run import config_of

from ove.errors import BadInput
from ove.train.alarms import Alarms
from ove.train.loop import train


def metrics(cosine: float = 0.3, overflow: float = 0.0) -> dict[str, float]:
    return {
        f"{name}/{bank}": value
        for bank in ("vid", "obj")
        for name, value in (
            ("embedding_cosine", cosine if bank == "vid" else 0.1),
            ("positive_overflow", overflow if bank == "obj" else 0.0),
        )
    }


def test_a_collapse_is_reported_after_the_warm_up_once_and_when_it_is_over() -> None:
    alarms = Alarms(config_of(Path()))
    said = []
    for step, cosine in ((1, 0.999), (3, 0.2), (4, 0.99), (5, 0.995), (6, 0.5), (7, 0.99)):
        values = metrics(cosine)
        said.append(list(alarms.of_step(step, values)))
        assert values["collapse/vid"] == float(cosine > 0.98 and step > 2)
        assert values["collapse/obj"] == 0
    assert [len(lines) for lines in said] == [0, 0, 1, 0, 1, 1]
    assert "ALARM at step 4: the embeddings of bank vid are nearly all the same (mean cosine 0.990" in said[2][0]
    assert said[4] == ["step 6: collapse of vid is over."]


def test_positives_without_room_are_reported() -> None:
    (line,) = Alarms(config_of(Path())).of_step(1, metrics(overflow=7))
    assert "7 positives of bank obj had no room" in line


def test_labels_past_the_bank_stop_a_run_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_set(tmp_path / "shards")
    from ove.batches.pipeline import Pipeline

    opened = Pipeline.__init__

    def with_fewer_centers(self, *args, **kwargs) -> None:
        opened(self, *args, **kwargs)
        self.n_centers = {"vid": 8, "obj": 5}

    monkeypatch.setattr(Pipeline, "__init__", with_fewer_centers)
    with pytest.raises(BadInput, match=r"labels of bank obj: \d+ of 24 are not within −1…4 \(sample \d, place \d: [567]\)"):
        train(config_of(shards), tmp_path / "run", lambda line: None)
