"""Operations, bytes and source lines of compiled programs against what they must be by their definition."""

import dataclasses
import inspect
import math

import jax
import jax.numpy as jnp
import pytest

from ove.config import EncoderConfig
from ove.encoder import block, encoder
from ove.plan.costs import DEVICE_KINDS
from ove.plan.hlo import Shape, parse, shapes
from ove.plan.programs import compile_encoder
from ove.plan.roofline import costs_of
from ove.train.monitor.speed import encoder_flops

H200, V5P = DEVICE_KINDS["h200"], DEVICE_KINDS["v5p"]
ENTRY = "HloModule m, num_partitions=8\n{before}ENTRY %main (p: f32[4]) -> f32[4] {{\n{lines}\n}}\n"


def program(lines: str, before: str = "") -> str:
    return ENTRY.format(lines="\n".join(f"  {line.strip()}" for line in lines.strip().splitlines()), before=before)


def flops_of(text: str) -> float:
    return sum(sum(cost.flops.values()) for cost in costs_of(parse(text), H200))


def test_products_in_loops_count_each_time() -> None:
    def loop(x: jax.Array) -> jax.Array:
        return jax.lax.scan(lambda y, w: (jnp.tanh(y @ w), None), x, jnp.full((5, 16, 16), 0.1) + x[0, 0])[0]

    compiled = jax.jit(loop).lower(jax.ShapeDtypeStruct((8, 16), jnp.float32)).compile()
    assert flops_of(compiled.as_text()) == 5 * 2 * 8 * 16 * 16


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_encoder_has_the_products_of_its_formula(remat: str) -> None:
    config = EncoderConfig(layers=3, width=64, heads=2, mlp=256, remat=remat, attention="reference")
    compiled = compile_encoder(config, jax.devices()[0], samples=2, tokens=24)
    expected = 2 * encoder_flops(config, 24)
    # The gradient of the patches' kernel is counted; none is of what goes into them. In `full` a layer goes forward again, but
    # for its last product.
    layer = 2 * (8 * 24 * 64**2 + 4 * 24**2 * 64 + 2 * 24 * 64 * 256)
    again = 3 * layer if remat == "full" else 0
    assert flops_of(compiled.as_text()) == pytest.approx(expected + again, rel=0.02)


# Products as a v5p's compiler writes them: `bnd,df->bnf`, `banq,aqd->bnd`, `bnd,ad->ban`, `ban,bnd->bad` of the encoder.
@pytest.mark.parametrize(
    ("left", "right", "out", "settings", "expected"),
    [
        ("8,256,128", "128,384,1", "8,256,384", "window={size=1}, dim_labels=0bf_io0->0bf", 2 * 8 * 256 * 128 * 384),
        (
            *("64,256,8", "8,128,64", "8,256,128"),
            "window={size=8 pad=7_7 rhs_reversal=1}, dim_labels=fb0_0oi->0fb",
            None,
        ),
        (
            *("8,2,256", "8,256,128", "8,2,128"),
            "window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf",
            2 * 8 * 2 * 256 * 128,
        ),
        ("8,128", "128,512", "8,512", "dim_labels=bf_io->bf", 2 * 8 * 128 * 512),
    ],
)
def test_products_that_are_written_as_convolutions(
    left: str, right: str, out: str, settings: str, expected: float | None
) -> None:
    text = program(f"""
        %l = bf16[{left}]{{0}} parameter(0)
        %r = bf16[{right}]{{0}} parameter(1)
        ROOT %c = bf16[{out}]{{0}} convolution(%l, %r), {settings}
    """)
    if expected is None:  # pairs of a place and a tap that meet within the input, counted one by one
        pairs = sum(0 <= place - 7 + tap < 8 for place in range(8) for tap in range(8))
        expected = 2 * 256 * 128 * 64 * pairs
    assert flops_of(text) == expected


@pytest.mark.parametrize(
    ("call", "products"),
    [
        ('%a = (bf16[2,4,96,64]{3,2,1,0}, f32[2,4,96]{2,1,0}) custom-call(%q), custom_call_target="__cudnn$fmhaSoftmax"', 2),
        ('%a = (bf16[2,4,96,64]{3,2,1,0}) custom-call(%q), custom_call_target="__cudnn$fmhaSoftmaxBackward"', 5),
        ('%splash_mha_fwd_residuals.3 = (bf16[2,4,96,64]{3,2,1,0}) custom-call(%q), custom_call_target="tpu_custom_call"', 2),
        ('%splash_mha_dq.1 = (bf16[2,4,96,64]{3,2,1,0}) custom-call(%q), custom_call_target="tpu_custom_call"', 3),
    ],
)
def test_kernels_of_attention_count_by_what_they_compute(call: str, products: int) -> None:
    assert flops_of(program(call)) == products * 2 * (2 * 4) * 96 * 96 * 64


def test_a_fusion_counts_by_the_slices_that_it_reads_and_writes() -> None:
    fused = """%fused (a: f32[10,8], b: f32[10,8], i: s32[]) -> f32[10,8] {
  %a = f32[10,8]{1,0} parameter(0)
  %b = f32[10,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %row = f32[1,8]{1,0} dynamic-slice(%b, %i, %i), dynamic_slice_sizes={1,8}
  %twice = f32[1,8]{1,0} add(%row, %row)
  ROOT %new = f32[10,8]{1,0} dynamic-update-slice(%a, %twice, %i, %i)
}
"""
    lines = """
        %a = f32[10,8]{1,0} parameter(0)
        %b = f32[10,8]{1,0} parameter(1)
        %i = s32[] parameter(2)
        ROOT %f = f32[10,8]{1,0} fusion(%a, %b, %i), kind=kLoop, calls=%fused
    """
    (cost,) = costs_of(parse(program(lines, fused)), H200)
    assert cost.bytes == 4 * 8 + 4 * 8 + 4  # a row in, a row out, the index
    assert cost.bound_by == "memory" and cost.seconds == pytest.approx(68 / 4.8e12)


@pytest.mark.parametrize(
    ("dtype", "attribute", "rate"),
    [("bf16", "", 989e12), ("f32", ", operand_precision={highest,highest}", 67e12), ("f32", "", 494.5e12)],
)
def test_products_take_as_long_as_their_numbers_say(dtype: str, attribute: str, rate: float) -> None:
    text = program(f"""
        %l = {dtype}[4096,4096]{{1,0}} parameter(0)
        ROOT %c = {dtype}[4096,4096]{{1,0}} dot(%l, %l), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}{attribute}
    """)
    (cost,) = costs_of(parse(text), H200)
    assert cost.bound_by == "compute" and cost.seconds == pytest.approx(2 * 4096**3 / rate)


def test_collectives_take_what_a_ring_takes() -> None:
    text = program("%r = f32[1000000]{0} all-reduce(%p), replica_groups=[1,8]<=[8], to_apply=%add")
    (cost,) = costs_of(parse(text), H200)
    assert cost.bound_by == "links" and cost.seconds == pytest.approx(2 * 7 / 8 * 4e6 / 450e9)
    slow = dataclasses.replace(H200, domain=4)
    assert costs_of(parse(text), slow)[0].seconds == pytest.approx(2 * 7 / 8 * 4e6 / 50e9)


@pytest.mark.parametrize(
    ("text", "padded", "traffic"),
    [
        ("f32[16,8]{1,0}", 16 * 8 * 4, 16 * 8 * 4),
        ("f32[16,8]{1,0:T(8,128)}", 16 * 128 * 4, 16 * 128 * 4),
        ("bf16[3,5,64]{1,2,0:T(8,128)(2,1)}", 3 * 64 * 128 * 2, 3 * 64 * 128 * 2),
        ("f32[100]{0:T(128)S(1)}", 128 * 4, 0),
    ],
)
def test_tiles_are_filled_and_memory_on_the_chip_is_free(text: str, padded: int, traffic: int) -> None:
    (shape,) = shapes(text)
    assert (shape.padded, shape.traffic, shape.size) == (padded, traffic, math.prod(shape.dims) * shape.bits // 8)
    assert str(Shape("f32", (2, 3))) == "f32[2,3]"


def test_cycles_of_the_compiler_are_summed_and_loops_without_a_count_turn_as_their_condition_says() -> None:
    loop = """%condition (c: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(24), metadata={op_name="x"}
  ROOT %lt = pred[]{:T(512)} fusion(%c, %limit), kind=kLoop, calls=%compare
}
%body (b: (s32[], f32[4])) -> (s32[], f32[4]) {
  %f = f32[4]{0} fusion(%b), kind=kLoop, calls=%absent, backend_config={"window_config":{},"estimated_cycles":"1500"}
}
"""
    costs = costs_of(parse(program("%w = (s32[], f32[4]{0}) while(%p), condition=%condition, body=%body", loop)), V5P)
    assert [(cost.cycles, cost.runs) for cost in costs] == [(24 * 1500, 24)]


def test_instructions_know_the_lines_that_they_came_from() -> None:
    config = EncoderConfig(layers=2, width=64, heads=2, mlp=128, attention="reference")
    parsed = parse(compile_encoder(config, jax.devices()[0], samples=1, tokens=8, backward=False).as_text())
    source, first = inspect.getsourcelines(block.SelfAttention.__call__)
    lines = {line for one, _, _ in parsed.executed() for line in parsed.lines(one)}
    assert lines & {f"encoder/block.py:{first + at}" for at in range(len(source))}
    assert any(line.startswith("encoder/attention.py:") for line in lines)
    assert not [line for line in lines if not line.partition(":")[2].isdigit()]
    assert encoder.__file__.endswith("ove/encoder/encoder.py")
