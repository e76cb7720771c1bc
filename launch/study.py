"""ove study STUDY|all --config=configs/study_toy.py --out DIR: the paper's tables and figures on one encoder.

Writes STUDY.md, .csv, .json, .png and .svg, and report.html with all studies in the folder. Resumes if interrupted.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ove.config import StudyConfig
from ove.files import only_writer
from ove.paths import check_names, holds_keys, output_folder
from ove.studies import places, probes
from ove.studies.html_report import write_page
from ove.studies.sets import Bench
from ove.studies.study import Study, markdown, write_study

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command

STUDIES: dict[str, Callable[[Bench], Study]] = {
    "budget": probes.budget,
    "interventions": probes.interventions,
    "ablation": probes.ablation,
    "bias": places.bias,
    "allocation": places.allocation,
    "retrieval": places.retrieval,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the studies, and writes each when it is done."""
    parser = command_parser("study", __doc__)
    parser.add_argument("study", choices=[*STUDIES, "all"], help="one study, or all one after the other")
    parser.add_argument("--out", type=Path, required=True, help="folder for tables, figures and what is kept for the next time")
    parser.add_argument("--replace", action="store_true", help="overwrite files that this command has not written")
    arguments, config = cli_settings.parse_with_config(parser, StudyConfig, argv)
    names = list(STUDIES) if arguments.study == "all" else [arguments.study]
    arguments.out = output_folder(arguments.out, "--out")
    for name in names:
        ours = holds_keys(arguments.out / f"{name}.json", "name", "shows", "columns")
        files = (f"{name}.{suffix}" for suffix in ("md", "csv", "png", "svg", "json"))
        check_names(arguments.out, files, "--out", ours, arguments.replace)
    of = config.probe
    print(cli_settings.inputs_line(arguments.config, [of.train_shards, of.val_shards], of.weights), flush=True)
    bench = Bench(config, arguments.out, partial(print, flush=True))
    for name in names:
        with only_writer(arguments.out / f"{name}.json"):
            study = STUDIES[name](bench)
            write_study(study, arguments.out)
        page = write_page(arguments.out, list(STUDIES), "Studies")
        print(f"\n{study.title}\n\n{markdown(study.columns, study.rows)}\nsee {page}", flush=True)


if __name__ == "__main__":
    run_command(main)
