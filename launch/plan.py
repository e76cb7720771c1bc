"""ove plan --config=FILE[:ARG] --devices N: estimates a run's cost on devices, without having them."""

import math
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from ove.config import RunConfig
from ove.errors import ConfigError
from ove.plan import costs
from ove.plan.costs import DEVICE_KINDS, DeviceKind, RunShape
from ove.plan.fit import setting_that_fits
from ove.plan.programs import collective_bytes, compile_step, materialized_leaves
from ove.train.monitor.speed import workload
from ove.train.sharding import check_division, make_mesh

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.numbers import number

CENTERS = {"obj": 2_000_000, "vid": 400_000, "ocr": 365_187}
LABELS = {"obj": 10, "vid": 10, "ocr": 100}
"""Of the paper's data (spec §3)."""
_SAFE_SHARE = 0.8
"""Of the memory that a run can use; compilers plan up to a fifth more than the formula says (docs/scaling.md)."""
_GPU_SHARE = 0.9
"""Of a GPU's memory that JAX takes: what launch/cluster/accelerators.sh sets."""
_GIB, _MIB = 2**30, 2**20
_FLAG = "--xla_force_host_platform_device_count"
_FRACTIONS = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")
"""Variables in which JAX is told its share of a GPU's memory; the second is the former name."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prints memory, collective bytes and time of one step by formula; with --compile, also those of the program."""
    parser = command_parser("plan", __doc__)
    add = parser.add_argument
    add_shape_options(parser)
    add("--compile", action="store_true", help="compile the step for pretended CPU devices, run nothing")
    options, config = cli_settings.parse_with_config(parser, RunConfig, argv)
    if options.compile:
        _pretend(options.devices)
    at, machine = shape_of(config, options), usable(DEVICE_KINDS[options.kind])
    print_plan(at, machine)
    if options.compile:
        print_comparison(at)
    print(fit_in_words(at, machine, options.kind))


def usable(machine: DeviceKind) -> DeviceKind:
    """Returns the device with the memory that JAX takes of it: of a TPU all, of a GPU the share that the environment says, or
    else the scripts in launch/cluster. ConfigError if what the environment says is no share."""
    if machine.clock_ghz:  # a TPU
        return machine
    name = next((name for name in _FRACTIONS if os.environ.get(name)), "")
    try:
        share = float(os.environ[name]) if name else _GPU_SHARE
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ConfigError(
            f"{name}={os.environ[name]} in the environment: must be above 0 and at most 1, as a share of a GPU's memory."
        )
    return replace(machine, memory_gib=share * machine.memory_gib)


def add_shape_options(parser: ArgumentParser) -> None:
    """Adds the options that tell on what a run is planned."""
    add = parser.add_argument
    add("--devices", type=number(1), required=True, help="GPUs, or chips of a TPU slice (a v5p-256 has 128)")
    add("--kind", choices=list(DEVICE_KINDS), default="h100", help="device, for memory and time (default: h100)")
    add("--centers", nargs="+", default=[], metavar="BANK=N", help="centers of banks (default: the paper's)")
    add("--image-px", type=number(1), default=224, help="side of images whose head names no size_px (default: 224)")


def shape_of(config: RunConfig, options: Namespace) -> RunShape:
    """Returns the run on the devices of the options; ConfigError if they cannot share its work."""
    check_division(config, options.devices)
    return RunShape(config, options.devices, _centers(options.centers), _tokens(config, options.image_px), LABELS)


def print_plan(at: RunShape, machine: DeviceKind) -> None:
    """Prints the plan."""
    axes = ", ".join(f"{name} {size}" for name, size in at.axes.items())
    work = workload(at.config, at.n_centers, at.tokens_of)
    print(f"{at.n_devices} devices ({axes}); {work.samples:,} samples and {work.tokens:,} tokens a step")
    counted = costs.memory(at)
    print("memory of a device, GiB: " + ", ".join(f"{name} {size / _GIB:.2f}" for name, size in counted.items()))
    print(f"  at its fullest {costs.total(counted) / _GIB:.1f} of {machine.memory_gib:.0f}")
    moved = costs.collectives(at)
    print("collectives of a device and step, MiB: " + ", ".join(f"{kind} {size / _MIB:.1f}" for kind, size in moved.items()))
    taken = costs.seconds(at, machine)
    print(f"estimated s a step: {', '.join(f'{name} {seconds:.3f}' for name, seconds in taken.items())}")
    low, high = max(taken[name] for name in ("compute", "near", "far")), taken["sum"]
    days = [at.config.train.steps * seconds / 86400 for seconds in (low, high)]
    print(
        f"  {work.samples / high:,.0f} to {work.samples / low:,.0f} samples/s; {at.config.train.steps:,} steps in "
        f"{days[0]:.1f} to {days[1]:.1f} days"
    )


def fit_in_words(at: RunShape, machine: DeviceKind, kind: str) -> str:
    """Says whether the run fits into the memory of a device and, if not, which settings would make it."""
    peak, safe = costs.total(costs.memory(at)) / _GIB, _SAFE_SHARE * machine.memory_gib
    of = f"{peak:.1f} of the {machine.memory_gib:.0f} GiB that JAX takes of each {kind}"
    if peak <= safe:
        return f"Fits: {of}."
    said = f"DOES NOT FIT: {of}" if peak > machine.memory_gib else f"MAY NOT FIT: {of}, and the estimate may be a fifth too low"
    if found := setting_that_fits(at, safe):
        return f"{said}; with {found[0]} it takes {found[1]:.1f} GiB."
    remat = "encoder.remat = full, " if at.config.encoder.remat != "full" else ""
    return (
        f"{said}; no train.grad_accum_steps or mesh.fsdp is enough on {at.n_devices} devices: use {remat}a smaller "
        "batch_size in batches.heads, or more devices."
    )


def print_comparison(at: RunShape) -> None:
    """Compiles the step without running it and prints formula and program side by side.

    In float32: the compiler for CPUs turns collectives of bfloat16 into such of float32.
    """
    at = replace(at, config=replace(at.config, encoder=replace(at.config.encoder, compute="float32")))
    print("compiled in float32, as CPUs exchange numbers:")
    mesh = make_mesh(at.config.mesh, jax.devices()[: at.n_devices])
    compiled, state, shardings = compile_step(at.config, mesh, at.n_centers, at.tokens_of, at.labels_of)
    program = str(compiled.as_text())
    found, expected = collective_bytes(program), costs.collectives(at)
    for kind, size in expected.items():
        print(f"{kind}: formula {size:,.0f} bytes, program {found.get(kind, 0):,}")
    print(f"whole in the program: {', '.join(materialized_leaves(program, state, shardings)) or 'nothing that the rules cut'}")
    sizes: Any = compiled.memory_analysis()
    planned = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
    print(f"memory: formula {costs.total(costs.memory(at)) / _GIB:.2f} GiB, program {planned / _GIB:.2f} GiB (of a CPU)")


def _tokens(config: RunConfig, image_px: int) -> dict[str, int]:
    """Tokens of a sample, of each bank."""
    patch = config.encoder.patch_px
    return {
        str(head.bank): (head.budget_tokens or config.batches.budget_tokens)
        if head.bank == "vid"
        else math.prod([(head.size_px or image_px) // patch] * 2)
        for head in config.batches.heads
    }


def _centers(assignments: Sequence[str]) -> Mapping[str, int]:
    centers = dict(CENTERS)
    for assignment in assignments:
        bank, _, number = assignment.partition("=")
        if bank not in centers or not number.isdigit() or int(number) < 1:
            raise ConfigError(f"--centers {assignment}: expected BANK=N, BANK one of {', '.join(CENTERS)}.")
        centers[bank] = int(number)
    return centers


def _pretend(n_devices: int) -> None:
    """Restarts this command on a CPU that pretends to be so many devices, which JAX must know before it starts."""
    flags = os.environ.get("XLA_FLAGS", "")
    wanted = f"{_FLAG}={n_devices}"
    if wanted in flags.split() and os.environ.get("JAX_PLATFORMS") == "cpu":
        return
    os.environ["XLA_FLAGS"] = " ".join([*(flag for flag in flags.split() if not flag.startswith(_FLAG)), wanted])
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.execv(sys.executable, [sys.executable, "-m", f"{__package__}.plan", *sys.argv[1:]])


if __name__ == "__main__":
    run_command(main)
