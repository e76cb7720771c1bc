"""The table and the JSON say the same."""

import json

from ove.probe.attentive import Scores
from ove.probe.compare import Comparison, Row
from ove.probe.report import as_json, table

ROWS = [
    Row("codec", True, Scores(0.75, 0.8, 0.9)),
    Row("frames", True, Scores(0.5, 0.6, 0.7)),
    Row("codec", False, Scores(0.25, 0.3, 0.4)),
    Row("frames", False, Scores(0.125, 0.2, 0.3)),
]


def test_the_table_has_an_encoder_a_row_and_a_mode_a_column() -> None:
    lines = table(Comparison(ROWS, 512, 8, 100, 50, 300)).splitlines()
    assert lines == [
        "| encoder | codec, 512 tokens | frames, 512 tokens |",
        "|---|---|---|",
        "| trained | 75.0% | 50.0% |",
        "| untrained | 25.0% | 12.5% |",
        "| chance | 12.5% | 12.5% |",
    ]


def test_one_mode_and_no_untrained_encoder_make_a_smaller_table() -> None:
    lines = table(Comparison([Row("image", True, Scores(0.5, 0.5, 0.5))], 512, 2, 100, 50, 300)).splitlines()
    assert lines[0] == "| encoder | image, one frame |"
    assert [line.split("|")[1].strip() for line in lines] == ["encoder", "---", "trained", "chance"]


def test_the_json_holds_scores_by_name_and_the_table() -> None:
    comparison = Comparison(ROWS, 512, 8, 100, 50, 300)
    values = json.loads(json.dumps(as_json(comparison)))
    assert values["probe"] == {"codec": 0.75, "frames": 0.5, "untrained_codec": 0.25, "untrained_frames": 0.125}
    assert values["probe_best_epoch"]["codec"] == 0.8 and values["probe_train"]["untrained_frames"] == 0.3
    assert values["budget_tokens"] == 512 and values["table"] == table(comparison)
    assert (values["classes"], values["train_videos"], values["val_videos"], values["encoder_step"]) == (8, 100, 50, 300)
