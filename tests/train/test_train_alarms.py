"""Alarms are given when something begins and when it is over."""

from pathlib import Path

import pytest
from synthetic import write_set
from tiny_run import config_of

from ove.errors import BadInput
from ove.train.loop import train
from ove.train.monitor.guards import PATIENCE, Alarms


def metrics(cosine: float = 0.3, overflow: float = 0.0) -> dict[str, float]:
    return {
        f"{name}/{bank}": value
        for bank in ("vid", "obj")
        for name, value in (
            ("embedding_cosine", cosine if bank == "vid" else 0.1),
            ("positive_overflow", overflow if bank == "obj" else 0.0),
        )
    }


def test_a_collapse_is_reported_when_it_stays_and_when_it_is_over() -> None:
    alarms = Alarms(config_of(Path()))
    said = {}
    cosines = [0.999] * 2 + [0.99, 0.2] * 60 + [0.99] * 60 + [0.5] * 40 + [0.99] * 10 + [0.5] * 60
    for step, cosine in enumerate(cosines, 1):
        values = metrics(cosine)
        lines = list(alarms.check(step, values))
        if lines:
            said[step] = lines
        assert values["collapse/vid"] == float(cosine > 0.98 and step > 2)
        assert values["collapse/obj"] == 0
    begins, ends = 2 + 120 + PATIENCE, 2 + 120 + 60 + 40 + 10 + PATIENCE
    assert {step: len(lines) for step, lines in said.items()} == {begins: 1, ends: 1}
    assert f"ALARM at step {begins}: the embeddings of bank vid have been nearly all the same" in said[begins][0]
    assert said[ends] == [f"step {ends}: collapse of vid is over."]


@pytest.mark.parametrize("lost", [1, 7])
def test_positives_without_room_are_reported_at_once_and_once(lost: int) -> None:
    alarms = Alarms(config_of(Path()))
    (line,) = alarms.check(1, metrics(overflow=lost))
    assert f" {lost} positives of bank obj had no room" in line
    assert list(alarms.check(2, metrics(overflow=lost))) == list(alarms.check(3, metrics())) == []


def test_what_lasted_one_step_is_over_after_fifty_without_it() -> None:
    alarms = Alarms(config_of(Path()))
    said = {step: list(alarms.check(step, metrics(overflow=step in (1, 80)))) for step in range(1, 140)}
    assert [step for step, lines in said.items() if lines] == [1, 1 + PATIENCE, 80, 80 + PATIENCE]
    assert said[1 + PATIENCE] == [f"step {1 + PATIENCE}: overflow of obj is over."]


def test_labels_past_the_bank_stop_a_run_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = write_set(tmp_path / "shards")
    from ove.stream.batch_pipeline import Pipeline

    opened = Pipeline.__init__

    def with_fewer_centers(self, *args, **kwargs) -> None:
        opened(self, *args, **kwargs)
        self.n_centers = {"vid": 8, "obj": 5}

    monkeypatch.setattr(Pipeline, "__init__", with_fewer_centers)
    with pytest.raises(BadInput, match=r"labels of bank obj: \d+ of 24 are not within −1…4 \(sample \d, place \d: [567]\)"):
        train(config_of(shards), tmp_path / "run", lambda line: None)
