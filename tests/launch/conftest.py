"""What a command answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from launch.cli import command


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Runs the main function of a command with arguments, as the command line would."""

    def run(main: Callable[[Sequence[str]], int | None], *arguments: object) -> Answer:
        with pytest.raises(SystemExit) as exit_:
            command.run_command(partial(main, [str(argument) for argument in arguments]))
        printed = capsys.readouterr()
        return Answer(int(exit_.value.code or 0), printed.out, printed.err)

    return run
