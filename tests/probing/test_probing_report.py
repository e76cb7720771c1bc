"""The table, the JSON and the CSV say the same."""

import csv
import dataclasses
import io
import json

import pytest

from ove.probing.compare import Comparison, ComparisonRow
from ove.probing.report import as_csv, as_json, table
from ove.probing.scores import Accuracy, Scores


def scores(*top1: float) -> tuple[Scores, ...]:
    def accuracy(value: float) -> Accuracy:
        return Accuracy(value, min(1.0, value + 0.2), value / 2, 50)

    return tuple(Scores(accuracy(v), accuracy(v + 0.05), 3, accuracy(v + 0.1)) for v in top1)


ROWS = [
    ComparisonRow("codec", 512, "none", False, scores(0.75)),
    ComparisonRow("frames", 512, "none", False, scores(0.5)),
    ComparisonRow("codec", 512, "none", True, scores(0.25)),
    ComparisonRow("frames", 512, "none", True, scores(0.125)),
]


def comparison(rows: list[ComparisonRow]) -> Comparison:
    return Comparison(rows, "encoder of step 300 of run", "attentive", tuple("abcdefgh"), 100, 50, 0)


def test_the_table_has_an_encoder_a_row_and_a_mode_and_budget_a_column() -> None:
    assert table(comparison(ROWS)).splitlines() == [
        "| encoder | codec, 512 tokens | frames, 512 tokens |",
        "|---|---|---|",
        "| given weights | 75.0% | 50.0% |",
        "| untrained | 25.0% | 12.5% |",
        "| chance | 12.5% | 12.5% |",
    ]


def test_seeds_budgets_and_interventions() -> None:
    rows = [
        ComparisonRow("codec", 512, "none", False, scores(0.5, 0.6, 0.7)),
        ComparisonRow("codec", 1024, "none", False, scores(0.7, 0.7, 0.7)),
        ComparisonRow("codec", 512, "non_motion", False, scores(0.4, 0.4, 0.4)),
    ]
    assert table(comparison(rows)).splitlines()[2:4] == [
        "| given weights | 60.0 ± 24.8% | 70.0 ± 0.0% |",
        "| given weights, non motion | 40.0 ± 0.0% |  |",
    ]


def test_one_mode_and_no_untrained_encoder_make_a_smaller_table() -> None:
    lines = table(comparison([ComparisonRow("image", 512, "none", False, scores(0.5))])).splitlines()
    assert lines[0] == "| encoder | image, one picture |"
    assert [line.split("|")[1].strip() for line in lines] == ["encoder", "---", "given weights", "chance"]


def test_the_json_holds_scores_by_name_and_the_table() -> None:
    given = comparison(
        [
            *ROWS,
            ComparisonRow("codec", 1024, "none", False, scores(0.9)),
            ComparisonRow("codec", 512, "shuffle", False, scores(0.1)),
        ]
    )
    values = json.loads(json.dumps(as_json(given)))
    assert values["probe"] == {"codec": 0.75, "frames": 0.5, "untrained_codec": 0.25, "untrained_frames": 0.125}
    assert values["probe_best_epoch"]["codec"] == pytest.approx(0.8)
    assert values["probe_train"]["untrained_frames"] == pytest.approx(0.225)
    assert values["budget_tokens"] == 512 and values["table"] == table(given)
    assert (values["classes"], values["train_samples"], values["val_samples"]) == (8, 100, 50)
    assert [(row["budget"], row["intervention"]) for row in values["rows"]][-2:] == [(1024, "none"), (512, "shuffle")]


def test_the_csv_has_a_line_a_seed() -> None:
    lines = list(
        csv.DictReader(io.StringIO(as_csv(comparison([ComparisonRow("codec", 512, "none", False, scores(0.5, 0.6))]))))
    )
    assert [(line["seed_number"], float(line["top1"]), float(line["top5"])) for line in lines] == [
        ("0", 0.5, 0.7),
        ("1", 0.6, 0.8),
    ]
    assert {line["samples"] for line in lines} == {"50"}


ROW = {
    "mode": "codec", "budget": 512, "intervention": "none", "untrained": False, "top1": 0.6,
    "top1_half_width_over_seeds": 4.302653 * 0.1 / 3**0.5, "top5": 0.8, "mean_class": 0.3, "best_epoch_top1": 0.65,
    "train_top1": 0.7, "samples": 50,
}  # fmt: skip


def test_every_number_of_a_row_is_what_its_name_says() -> None:
    given = comparison([ComparisonRow("codec", 512, "none", False, scores(0.5, 0.6, 0.7))])
    (row,) = as_json(given)["rows"]
    assert row.pop("seeds") == [0.5, 0.6, 0.7]
    assert row.pop("top1_interval_of_first_seed") == pytest.approx([0.366, 0.634], abs=1e-3)
    assert row == pytest.approx(ROW) and row.keys() == ROW.keys()
    (first, *_) = csv.DictReader(io.StringIO(as_csv(given)))
    assert first == {
        "mode": "codec", "budget": "512", "intervention": "none", "untrained": "False", "seed_number": "0", "top1": "0.5",
        "top5": "0.7", "mean_class": "0.25", "best_epoch": "3", "best_top1": "0.55", "train_top1": "0.6", "samples": "50",
    }  # fmt: skip
    assert (
        as_json(comparison([ComparisonRow("codec", 512, "none", False, scores(0.5))]))["rows"][0]["top1_half_width_over_seeds"]
        is None
    )


def test_scores_by_name_are_of_the_first_budget_and_pictures_have_but_one() -> None:
    rows = [ComparisonRow("codec", 1024, "none", False, scores(0.7)), ComparisonRow("codec", 512, "none", False, scores(0.5))]
    rows += [ComparisonRow("image", 512, "none", False, scores(0.3))]
    assert as_json(comparison(rows))["probe"] == {"codec": 0.7, "image": 0.3}
    values = as_json(dataclasses.replace(comparison(rows), n_unknown=4))
    assert (values["val_samples_of_unknown_classes"], values["kind"]) == (4, "attentive")
    assert values["encoder"] == "encoder of step 300 of run" and values["budget_tokens"] == 1024


def test_thousands_are_set_apart_and_a_missing_row_is_empty() -> None:
    rows = [ComparisonRow("codec", 2048, "none", False, scores(0.5)), ComparisonRow("frames", 2048, "none", True, scores(0.25))]
    assert table(comparison(rows)).splitlines()[0] == "| encoder | codec, 2,048 tokens | frames, 2,048 tokens |"
    assert table(comparison(rows)).splitlines()[2:4] == ["| given weights | 50.0% |  |", "| untrained |  | 25.0% |"]
