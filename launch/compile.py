"""ove compile --config=FILE[:ARG] --devices N --kind KIND: compiles a training step for devices that are not here."""

import dataclasses
import json
import time
from collections.abc import Sequence

import jax

from ove.config import RunConfig
from ove.files import write_text
from ove.paths import output_file
from ove.plan import costs
from ove.plan.costs import DEVICE_KINDS
from ove.plan.report import PROGRAMS, compile_for, report_on, to_text

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.numbers import number
from .plan import add_shape_options, shape_of, usable


def main(argv: Sequence[str] | None = None) -> None:
    """Prints what the compiled program takes of each device."""
    parser = command_parser("compile", __doc__)
    add_shape_options(parser)
    add = parser.add_argument
    what = "the training step (default), or the encoder on a microbatch of the first head, with its gradient or forward"
    add("--program", choices=PROGRAMS, default="step", help=what)
    add("--top", type=number(0), default=10, help="instructions to list, the dearest first (default: 10)")
    add("--json", action="store_true", help="print one JSON object")
    add("--save-hlo", metavar="FILE", help="write the compiled program there, as text")
    options, config = cli_settings.parse_with_config(parser, RunConfig, argv)
    at = shape_of(config, options)
    hlo = output_file(options.save_hlo, "--save-hlo", replace=True) if options.save_hlo else None
    # The devices compiled for are not those of this process, which needs none of its own.
    jax.config.update("jax_platforms", "cpu")
    begun = time.perf_counter()
    compiled, expected = compile_for(at, options.kind, options.program)
    seconds = time.perf_counter() - begun
    if hlo is not None:
        write_text(hlo, str(compiled.as_text()))
    report = report_on(compiled, DEVICE_KINDS[options.kind], expected, options.top)
    if options.json:
        named = {"program": options.program, "kind": options.kind, "devices": options.devices, "compiled_s": seconds}
        print(json.dumps(named | dataclasses.asdict(report)))
        return
    print(f"{options.program} for {options.devices} {options.kind}, compiled in {seconds:.0f} s")
    print(to_text(report))
    if options.program == "step":
        for kind, size in costs.collectives(at).items():
            print(f"{kind} by formula: {size:,.0f} bytes")
        peak, there = costs.total(costs.memory(at)) / 2**30, usable(DEVICE_KINDS[options.kind]).memory_gib
        print(f"memory by formula, GiB: {peak:.2f} of {there:.0f}")


if __name__ == "__main__":
    run_command(main)
