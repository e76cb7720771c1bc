"""`ove COMMAND …`, or `python -m launch COMMAND …`: every command of `launch` under one name."""

import difflib
import importlib
import sys
from collections.abc import Mapping

from .cli.command import run_command

GROUPS: Mapping[str, Mapping[str, str]] = {
    "Start": {
        "quickstart": "run the whole pipeline once, on toy videos or your own",
        "toy": "draw toy videos with known motion",
    },
    "Videos and shards": {
        "extract": "codec signals, saliency and selected patches of videos, with pictures",
        "shards": "write videos or pictures into shards",
        "import_tfio": "write into shards what only TensorFlow can read",
        "verify": "check shards",
        "show": "print and draw records of shards",
        "annotations": "turn a benchmark's annotation files into lists",
    },
    "Train": {
        "labels": "embed, cluster and label the records of shards; text tags",
        "centers": "export, import and compare class centers",
        "train": "train an encoder, or resume a run",
        "bench_data": "measure how fast batches can be read",
        "plan": "estimate what a run costs on devices that you do not have yet",
        "compile": "compile a step for such devices: memory, operations, bytes, the least time",
    },
    "Use and evaluate": {
        "encode": "features of files",
        "convert": "published weights to a run, and back",
        "probe": "score a frozen encoder on labelled shards or features",
        "study": "reproduce the paper's tables and figures",
    },
}
"""Commands by what people want to do; each is the module of that name, and has `--help`."""
EXITS = """Exit codes: 0 done; 2 bad input, said in one sentence; 69 another process of the run was lost;
70 ended by the watchdog; 75 preempted, start again to resume; 130 interrupted; 141 the reader of the output is gone."""


def main() -> None:
    """Runs the command that the first argument names with the others; without one, lists all commands."""
    words = sys.argv[1:]
    asks = words[:1] in (["-h"], ["--help"], ["help"])
    if asks and words[1:]:
        words = [*words[1:], "--help"]
    elif asks or not words:
        run_command(lambda: print(overview()))
    elif words[0] == "--version":
        run_command(lambda: print(importlib.import_module("importlib.metadata").version("ove")))
    command = importlib.import_module(f".{_known(words[0])}", __package__)
    sys.argv = [sys.argv[0], *words[1:]]
    run_command(command.main, getattr(command, "LEAVE", sys.exit))


def _known(word: str) -> str:
    """Returns the name of a command; exits with 2 if there is none of that name."""
    known = [name for group in GROUPS.values() for name in group]
    name = word.replace("-", "_")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`ove --help` lists all."
        print(f"error: ove has no command {word!r}; {hint}", file=sys.stderr)
        sys.exit(2)
    return name


def overview() -> str:
    """Returns the list of all commands, in groups."""
    lines = ["usage: ove COMMAND …", "", "`ove help COMMAND` explains a command."]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12} {about}" for name, about in commands.items())]
    return "\n".join([*lines, "", EXITS])


if __name__ == "__main__":
    main()
