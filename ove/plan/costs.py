"""Predicts what a training step costs a device: memory, bytes through collectives, operations, time (docs/scaling.md).

Collectives are counted exactly, and a test compares them with compiled programs. Memory is a model, a fifth below what the
compiler plans on a CPU for stage 2 (docs/scaling.md says for what). Time is an estimate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from ove.centers.gradient import loss_of
from ove.centers.health import NORMS
from ove.centers.placement import padded
from ove.centers.sample import sample_shard
from ove.config import EncoderConfig, HeadConfig, RunConfig
from ove.encoder import encoder
from ove.train.init import n_negatives
from ove.train.monitor.speed import bank_flops, encoder_flops
from ove.train.sharding import BANK, DATA, FSDP, axis_sizes, leaf_name, rule_of


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device, for estimates."""

    tflops: float
    """10¹² bfloat16 operations a second."""
    tflops_f32: float
    """The same in float32 to its last bit (precision `highest`)."""
    tflops_tf32: float
    """The same of float32 numbers at JAX's default precision: TF32 on GPUs, one pass of bfloat16 on TPUs."""
    memory_gib: float
    hbm: float
    """10⁹ bytes a second between device and memory."""
    domain: int
    """Devices that `near` connects."""
    near: float
    """10⁹ bytes a second that a device can send to others of its domain."""
    far: float
    """The same to others."""
    clock_ghz: float = 0.0
    """Of a TPU, for the cycles of its compiler: peak / (operations of its matrix units a cycle)."""


DEVICE_KINDS = {
    "h100": DeviceKind(989.0, 67.0, 494.5, 80e9 / 2**30, 3352.0, 8, 450.0, 50.0),
    "a100": DeviceKind(312.0, 19.5, 156.0, 80e9 / 2**30, 2039.0, 8, 300.0, 25.0),
    "h200": DeviceKind(989.0, 67.0, 494.5, 141e9 / 2**30, 4800.0, 8, 450.0, 50.0),
    "b200": DeviceKind(2250.0, 75.0, 1125.0, 180e9 / 2**30, 7672.0, 8, 900.0, 50.0),
    "v4": DeviceKind(275.0, 275 / 6, 275.0, 32.0, 1228.0, 4096, 300.0, 300.0, 1.05),
    "v5e": DeviceKind(197.0, 197 / 6, 197.0, 16.0, 819.0, 256, 200.0, 3.1, 1.5),
    "v5p": DeviceKind(459.0, 459 / 6, 459.0, 95.0, 2765.0, 8960, 600.0, 600.0, 1.75),
    "v6e": DeviceKind(918.0, 918 / 6, 918.0, 32.0, 1638.0, 256, 400.0, 12.5, 1.75),
}
"""NVIDIA's data sheets: "H100", "H200", NVLink 900 GB/s both ways, a 400 Gb/s adapter a GPU; "A100 80GB SXM", NVLink 600 GB/s
both ways, and "DGX A100", a 200 Gb/s adapter a GPU; "DGX B200", an eighth of its dense figures. Google's pages on v4, v5e, v5p
and v6e: half of what they call bidirectional; beyond a slice the pod's share of its data center network. Float32 takes six
passes of bfloat16 on TPUs."""
ASSUMED_MFU = 0.45
"""Assumed model FLOPs utilisation."""
_NO_GRADIENT = "pool/k/bias"
"""Adds the same to all logits of a query (`ove.encoder.pool`)."""
Bytes = dict[str, float]


@dataclass(frozen=True)
class RunShape:
    """A configuration on a number of devices, with the sizes of the data."""

    config: RunConfig
    n_devices: int
    n_centers: Mapping[str, int]
    tokens_of: Mapping[str, int]
    labels_of: Mapping[str, int]
    """Labels of a stored sample, of each bank."""

    @property
    def axes(self) -> dict[str, int]:
        """Name → size."""
        return axis_sizes(self.config.mesh, self.n_devices)

    @property
    def bank_shards(self) -> int:
        """Parts that a bank is cut into."""
        return self.n_devices // (self.axes[DATA] if BANK in self.axes else 1)

    def parameters(self) -> dict[str, tuple[int, bool]]:
        """Returns name → (count, whether it is sharded over fsdp) of the encoder's parameters."""
        abstract = jax.eval_shape(partial(encoder.init, self.config.encoder), jax.random.key(0))
        flat = jax.tree_util.tree_flatten_with_path(abstract)[0]
        cuts = self.axes[FSDP] > 1
        return {leaf_name(path): (leaf.size, cuts and FSDP in rule_of("params/" + leaf_name(path))) for path, leaf in flat}

    def slots(self, head: HeadConfig) -> int:
        """Rows of a shard of the bank that a step samples."""
        n = self.n_centers[head.bank]
        draw = partial(
            sample_shard,
            length=padded(n, self.bank_shards) // self.bank_shards,
            n_centers=n,
            n_negatives=n_negatives(head.negatives, n),
            n_shards=self.bank_shards,
            config=self.config.centers,
        )
        labels = jax.ShapeDtypeStruct((head.batch_size, head.labels_per_step), jnp.int32)
        return len(jax.eval_shape(draw, jax.random.key(0), labels, jax.ShapeDtypeStruct((), jnp.int32)).ids)


def memory(at: RunShape) -> Bytes:
    """Returns bytes on one device by part: the state (`encoder`, `banks`, with moments), and a step's peak on top."""
    config, axes, compute = at.config, at.axes, _width(at.config)
    parameters = at.parameters()
    local = sum(n // (axes[FSDP] if cut else 1) for n, cut in parameters.values())
    layers = config.encoder.layers
    of_blocks = sum(n for name, (n, _) in parameters.items() if name.startswith("blocks/")) // layers
    others = sum(n for name, (n, _) in parameters.items() if not name.startswith("blocks/"))
    counted = {"encoder": 12.0 * local, "banks": 0.0, "batch": 0.0}
    slots = {head.bank: at.slots(head) for head in config.batches.heads}
    for head in config.batches.heads:
        rows, width = padded(at.n_centers[head.bank], at.bank_shards) // at.bank_shards, config.encoder.embedding_width
        counted["banks"] += rows * (12 * width + 12)
        tokens = at.tokens_of[head.bank]
        counted["batch"] += head.batch_size / at.n_devices * (tokens * (config.encoder.patch_values + 12) + 4)
    kept = [_activations(at, head) for head in config.batches.heads]
    adds_up = config.train.grad_accum_steps > 1 or len(config.batches.heads) > 1
    counted["gradients"] = (8.0 if adds_up else 4.0) * local
    counted["gathered"] = compute * 2 * of_blocks + 4.0 * others if axes[FSDP] > 1 else compute * (of_blocks + others)
    counted["activations"] = max(kept)
    counted["layer"] = max(_one_layer(at, head) for head in config.batches.heads)
    of_rows = [4.0 * slots[head.bank] * config.encoder.embedding_width for head in config.batches.heads]
    counted["bank step"] = sum(of_rows) + (max(of_rows) if config.train.grad_accum_steps > 1 else 0.0)
    counted["bank step"] += max(_bank_work(at, head) for head in config.batches.heads)
    return counted


def total(counted: Bytes) -> float:
    """Returns the peak of `memory`: banks work while activations are held, the encoder's gradients come after."""
    stays = counted["encoder"] + counted["banks"] + counted["batch"] + counted["activations"]
    backward = counted["gradients"] + counted["gathered"] + counted["layer"] + counted["bank step"]
    return stays + backward


def collectives(at: RunShape) -> Bytes:
    """Bytes a device and step: gathers by result, the others by operand, as `ove.plan.programs.collective_bytes`."""
    found = {"all-gather": 0.0, "reduce-scatter": 0.0, "all-reduce": 0.0}
    for kind, size, _ in _collectives(at):
        found[kind] += size
    return found


def seconds(at: RunShape, machine: DeviceKind) -> dict[str, float]:
    """Estimates seconds of a step: `compute`, `near` and `far` (sent within and between domains, in rings), and their `sum`.

    Ideally what is sent is hidden behind what is computed: the step then takes the largest of the three.
    """
    of_banks = machine.tflops_f32 if at.config.centers.precision == "highest" else machine.tflops / 3
    teraseconds = 0.0
    for head in at.config.batches.heads:
        n = at.tokens_of[head.bank]
        of_sample = encoder_flops(at.config.encoder, n) + _recomputed_flops(at.config.encoder, n)
        teraseconds += head.batch_size * of_sample / machine.tflops
        teraseconds += bank_flops(at.config, head, at.n_centers[head.bank]) / of_banks
    found = {"compute": teraseconds / 1e12 / at.n_devices / ASSUMED_MFU, "near": 0.0, "far": 0.0}
    for kind, size, group in _collectives(at):
        sent = (2 if kind == "all-reduce" else 1) * size * (group - 1) / group
        is_near = group <= machine.domain
        found["near" if is_near else "far"] += sent / 1e9 / (machine.near if is_near else machine.far)
    return found | {"sum": sum(found.values())}


def _collectives(at: RunShape) -> list[tuple[str, float, int]]:
    """Returns (kind, bytes, devices in the group) of every collective of a step."""
    config, axes, n, accumulate = at.config, at.axes, at.n_devices, at.config.train.grad_accum_steps
    fsdp, parameters, heads = axes[FSDP], at.parameters(), at.config.batches.heads
    cut = {name: size for name, (size, is_cut) in parameters.items() if is_cut}
    blocks = sum(size for name, size in cut.items() if name.startswith("blocks/"))
    outside = sum(cut.values()) - blocks
    found: list[tuple[str, float, int]] = []
    if cut:
        times = len(heads) * 2 * accumulate
        found += [("all-gather", float(_width(config) * (times * blocks + outside)), fsdp)]
        found += [
            ("reduce-scatter", 4.0 * (len(heads) * accumulate * blocks + outside), fsdp),
            ("all-reduce", 4.0 * len(cut), fsdp),
        ]
    found += [("all-reduce", 4.0 * sum(cut.values()) / fsdp, n // fsdp)]
    whole = sum(size for name, (size, is_cut) in parameters.items() if not is_cut and name != _NO_GRADIENT)
    found += [("all-reduce", 4.0 * whole, n)]
    for head in heads:
        embeddings = 4.0 * head.batch_size * config.encoder.embedding_width
        found.append(("all-gather", embeddings + 4.0 * head.batch_size * at.labels_of[head.bank], n))
        for axis, size in axes.items():
            if axis != DATA or BANK not in axes:
                found.append(("reduce-scatter", embeddings if size > 1 else 0.0, size))
            embeddings /= size
        norms = min(at.slots(head), max(1, NORMS // at.bank_shards)) * at.bank_shards
        found.append(("all-reduce", 4.0 * (10 + norms), at.bank_shards))
        of_sample, of_label = loss_of(config.centers).sums
        found.append(("all-reduce", 4.0 * head.batch_size * (of_sample + of_label * head.labels_per_step), at.bank_shards))
    return [(kind, size, group) for kind, size, group in found if group > 1]


def _width(config: RunConfig) -> int:
    return jnp.dtype(config.encoder.compute).itemsize


def _recomputed_flops(c: EncoderConfig, n: int) -> float:
    """Counts the FLOPs of a sample's products that the backward pass computes again, which is never the last of a layer."""
    out, fc1 = 2 * n * c.width**2, 2 * n * c.width * c.mlp
    qkv, attention = 6 * n * c.width**2, 4 * n**2 * c.width
    return c.layers * {"none": 0.0, "dots": float(out + fc1), "full": float(qkv + attention + out + fc1)}[c.remat]


def _activations(at: RunShape, head: HeadConfig) -> float:
    """Bytes that the backward pass of one microbatch keeps of all layers."""
    c = at.config.encoder
    token = {"none": 6 * c.width + c.mlp, "dots": 5 * c.width, "full": c.width}[c.remat] * _width(at.config)
    log_total = 0 if c.remat == "full" else 4 * c.heads
    return c.layers * _tokens(at, head) * (token + log_total)


def _one_layer(at: RunShape, head: HeadConfig) -> float:
    """Approximates the bytes live in the backward pass of one layer: residuals of its parts, and gradients of the widest."""
    c = at.config.encoder
    return _tokens(at, head) * ((6 * c.width + 3 * c.mlp) * _width(at.config) + 4 * 2 * c.width)


def _tokens(at: RunShape, head: HeadConfig) -> float:
    """Counts the tokens of one microbatch on a device."""
    return head.batch_size / at.n_devices / at.config.train.grad_accum_steps * at.tokens_of[head.bank]


def _bank_work(at: RunShape, head: HeadConfig) -> float:
    """Bytes of a bank's step beyond the gradient of its rows (docs/centers.md)."""
    width, batch = at.config.encoder.embedding_width, head.batch_size / at.config.train.grad_accum_steps
    chunk = math.ceil(at.slots(head) / math.ceil(at.slots(head) / at.config.centers.chunk_rows))
    return 4.0 * (3 * batch * width + 3 * chunk * batch + 6 * chunk * width)
