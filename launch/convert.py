"""ove convert SOURCE DEST: published weights ↔ the folder of a run."""

import argparse
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ove.config import EncoderConfig, RunConfig
from ove.encoder import published
from ove.encoder.encoder import Encoder
from ove.encoder.presets import PRESETS
from ove.encoder.published.hub import local_weights
from ove.encoder.published.layout import published_tensors
from ove.encoder.published.origin import Origin, read_origin, write_origin
from ove.encoder.published.weight_files import SAFETENSORS
from ove.errors import ConfigError
from ove.features.model_card import CARD, write_model_card
from ove.files import only_writer
from ove.paths import output_folder
from ove.tokens.preprocessing import OF_PUBLISHED, OF_RUN, read_preprocessing, save_preprocessing
from ove.train.checkpoints.checkpoint import Checkpoints, restore_encoder
from ove.train.init import TrainState
from ove.train.monitor.guards import init_loss_window

from .cli.command import command_parser, run_command
from .cli.numbers import number

ORIGIN_FILE = "published.safetensors"
"""Metadata of the published file, in the folder of a converted run."""
_CHECKPOINTS = "checkpoints"
_WRITTEN = {
    "run": (_CHECKPOINTS, ORIGIN_FILE, OF_RUN),
    "published": (SAFETENSORS, published.CONFIG, OF_PUBLISHED),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the encoder in SOURCE, describes it, and writes it to DEST in the other format."""
    options = _parser().parse_args(argv)
    options.source, options.dest = local_weights(options.source), output_folder(options.dest, "DEST")
    from_run = (options.source / _CHECKPOINTS).is_dir()
    to = options.to or ("published" if from_run else "run")
    _check(options, from_run, to)
    if from_run:
        config, params, step = restore_encoder(options.source, options.step)
        origin = read_origin(options.source / ORIGIN_FILE) if (options.source / ORIGIN_FILE).is_file() else None
        encoder = published.assemble(config, params, origin)
        print(f"{options.source}: a run at step {step}")
    else:
        encoder, step = published.load(options.source), 0
        print(f"{options.source}: published weights")
    print(describe_encoder(encoder))
    with only_writer(options.dest / _WRITTEN[to][0]):
        _write(encoder, step, to, options)


def _write(encoder: Encoder, step: int, to: str, options: argparse.Namespace) -> None:
    """Writes DEST in the format `to`, and says which files."""
    inputs = read_preprocessing(options.source if options.source.is_dir() else options.source.parent)
    written = list(_WRITTEN[to])
    if to == "run":
        _write_run(encoder, step, options.source, options.dest)
    else:
        published.save(encoder, options.dest, options.dtype)
        written += [CARD] * write_model_card(options.dest, encoder.config, inputs, step)
    if inputs:
        save_preprocessing(options.dest / (OF_RUN if to == "run" else OF_PUBLISHED), inputs)
    print(f"{options.dest}: written ({', '.join(name for name in written if (options.dest / name).exists())})")


def _write_run(encoder: Encoder, step: int, source: Path, dest: Path) -> None:
    """Writes a run folder with one checkpoint: the encoder, without the state to resume training."""
    params = nnx.to_pure_dict(nnx.state(encoder, nnx.Param))
    state = TrainState(jnp.int32(step), params, {}, (), jax.random.key(0), init_loss_window(1))  # orbax saves no empty arrays
    fresh = dest / ".converting"
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with contextlib.closing(Checkpoints(fresh, keep=1)) as checkpoints:
            checkpoints.save(state, RunConfig(encoder=encoder.config), {"converted_from": str(source)})
        shutil.rmtree(dest / _CHECKPOINTS, ignore_errors=True)
        (dest / ORIGIN_FILE).unlink(missing_ok=True)
        if isinstance(encoder.origin, Origin):
            write_origin(encoder.origin, dest / ORIGIN_FILE)
        (fresh / _CHECKPOINTS).rename(dest / _CHECKPOINTS)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def describe_encoder(encoder: Encoder) -> str:
    """Returns sizes, layout and number of parameters, on two lines."""
    config, origin = encoder.config, encoder.origin
    fused_qkv = isinstance(origin, Origin) and origin.fused_qkv
    tensors = published_tensors(config, fused_qkv)
    sizes = [name for name, preset in PRESETS.items() if _sizes(preset) == _sizes(config)]
    parts = [
        f"encoder ({sizes[0] if sizes else 'of no preset'}): {config.layers} layers, width {config.width}",
        f"{config.heads} heads of {config.head_width}, MLP {config.mlp}, patch {config.patch_px}",
        f"{config.norm} eps {config.norm_eps:g}, RoPE {config.rope} theta {config.rope_theta:g}",
        "pooling head" if config.pooling_head else "no pooling head",
    ]
    n_parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors)
    count = f"{len(tensors)} tensors, {n_parameters:,} parameters"
    if not isinstance(origin, Origin):
        return f"{', '.join(parts)}\n{count}"
    layout = "q, k, v in one tensor" if fused_qkv else "q, k, v apart"
    prefix = f", names begin with {origin.prefix}" if origin.prefix else ""
    dtypes = " and ".join(sorted(set(origin.dtypes.values())))
    beside = f"; {len(origin.extra_tensors)} other tensors beside them" if origin.extra_tensors else ""
    return f"{', '.join(parts)}\n{count} (published in {dtypes}), {layout}{prefix}{beside}"


def _sizes(config: EncoderConfig) -> tuple[int, ...]:
    return config.layers, config.width, config.heads, config.mlp, config.patch_px


def _check(options: argparse.Namespace, from_run: bool, to: str) -> None:
    """Raises ConfigError if options conflict or DEST is taken."""
    source, dest = options.source, options.dest
    if options.step is not None and not from_run:
        raise ConfigError(f"--step: {source} is not the folder of a run, which alone has steps; leave --step out.")
    if options.dtype not in (None, "float32") and to == "run":
        raise ConfigError(f"--dtype {options.dtype}: runs hold float32; leave --dtype out, or add --to published.")
    if dest.exists() and not dest.is_dir():
        raise ConfigError(f"{dest}: is a file; give a folder as DEST.")
    if dest.exists() and source.exists() and dest.samefile(source if source.is_dir() else source.parent):
        raise ConfigError(f"{dest}: DEST is where SOURCE lies; give another folder.")
    other = [name for name in _WRITTEN["published" if to == "run" else "run"] if (dest / name).exists()]
    if other:
        raise ConfigError(f"{dest}: holds {' and '.join(other)}, which is the other format; give another folder.")
    if not options.force and dest.exists() and any(dest.iterdir()):
        raise ConfigError(
            f"{dest}: is not empty; give another folder, or --force, which replaces {' and '.join(_WRITTEN[to])} in it."
        )


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("convert", "Published weights to the folder of a run, which `ove probe` reads, and back.")
    add = parser.add_argument
    add("source", type=Path, metavar="SOURCE", help="hub name, published folder or file, or run folder")
    add("dest", type=Path, metavar="DEST", help="folder to write to")
    add("--to", choices=("run", "published"), help="format of DEST (default: the one that SOURCE is not)")
    add("--step", type=number(0), metavar="N", help="checkpoint of the run (default: the newest)")
    add("--dtype", choices=published.DTYPES, help="of published weights (default: as they came; float32 if trained here)")
    add("--force", action="store_true", help="write into a folder that is not empty")
    return parser


if __name__ == "__main__":
    run_command(main)
