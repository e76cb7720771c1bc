"""Each red flag is seen in a program that has the fault, and not in one without it."""

import jax
import jax.numpy as jnp
import pytest

from ove.config import EncoderConfig
from ove.plan.costs import DEVICE_KINDS
from ove.plan.hlo import parse
from ove.plan.programs import compile_encoder
from ove.plan.red_flags import FINDERS, Expected, red_flags
from ove.plan.roofline import costs_of

FRAMES = """
FileNames
1 "/some/where/ove/encoder/block.py"
2 "/some/where/ove/centers/losses.py"

FunctionNames
1 "linear"

FileLocations
1 {file_name_id=1 function_name_id=1 line=102 end_line=102 column=1 end_column=2}
2 {file_name_id=2 function_name_id=1 line=7 end_line=7 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

"""
BANK = frozenset({(1000, 64)})
BF16 = Expected("bfloat16")


def flags(text: str, expected: Expected = BF16) -> list[tuple[str, str]]:
    program = parse(text)
    return list(red_flags(program, costs_of(program, DEVICE_KINDS["h200"]), expected))


def written(lines: str, before: str = "") -> str:
    return f"HloModule m\n{FRAMES}{before}ENTRY %main (p: f32[4]) -> f32[4] {{\n  {lines.strip()}\n}}\n"


def dot(dtype: str, frame: int) -> str:
    return written(f"""%l = {dtype}[64,64]{{1,0}} parameter(0)
  %d = {dtype}[64,64]{{1,0}} dot(%l, %l), lhs_contracting_dims={{1}}, metadata={{op_name="x" stack_frame_id={frame}}}""")


def test_wide_products_of_the_encoder_but_not_those_of_banks() -> None:
    assert flags(dot("f32", 1)) == [("float32 products in the encoder", "0.000·10¹² operations at encoder/block.py:102")]
    assert not flags(dot("bf16", 1)) and not flags(dot("f32", 2)) and not flags(dot("f32", 1), Expected("float32"))


@pytest.mark.parametrize(("backend", "seen"), [("reference", True), ("cpu", False)])
def test_scores_of_all_tokens(backend: str, seen: bool) -> None:
    # 1,200 tokens: more than a chunk of attention on CPUs, and no other size of this encoder.
    config = EncoderConfig(layers=1, width=64, heads=2, mlp=128, attention=backend)
    compiled = compile_encoder(config, jax.devices()[0], samples=1, tokens=1200)
    found = flags(compiled.as_text(), Expected("float32", frozenset({1200})))
    assert bool(found) == seen
    assert all(kind == "scores of all tokens in memory" and "encoder/attention.py" in where for kind, where in found)


def test_doubles_and_calls_of_the_host() -> None:
    shape = jax.ShapeDtypeStruct((4,), jnp.float32)
    plain = jax.jit(jnp.sin).lower(shape).compile().as_text()
    calling = jax.jit(lambda x: jax.pure_callback(lambda y: y, shape, x) + 1).lower(shape).compile().as_text()
    assert not flags(plain)
    assert [kind for kind, _ in flags(calling)] == ["calls of the host"]
    assert [kind for kind, _ in flags(written("%x = f64[4]{0} add(%p, %p)"))] == ["float64"]


def test_copies_of_banks() -> None:
    expected = Expected("bfloat16", banks=BANK)
    copied = written('%c = f32[1000,64]{1,0} copy(%p), metadata={op_name="step/copy"}')
    assert flags(copied, expected) == [("copies of banks", "f32[1000,64], 0 MiB, 1 times at step/copy")]
    fused = "%f (a: f32[1000,64]) -> f32[1000,64] {\n  %a = f32[1000,64]{1,0} parameter(0)\n  ROOT %c = "
    line = "%w = f32[1000,64]{1,0} fusion(%p), kind=kLoop, calls=%f"
    assert flags(written(line, fused + "f32[1000,64]{1,0} copy(%a)\n}\n"), expected)
    assert not flags(written(line, fused + "f32[1000,64]{1,0} multiply(%a, %a)\n}\n"), expected)
    assert not flags(written("%c = f32[999,64]{1,0} copy(%p)"), expected)
    assert flags(written("%x = f32[4]{0} add(%p, %p)"), Expected("bfloat16", whole=("banks/vid/rows",)))


def test_padded_arrays() -> None:
    def stored(shape: str) -> list[tuple[str, str]]:
        return flags(written(f'%x = {shape} add(%p, %p), metadata={{op_name="x" stack_frame_id=1}}'))

    assert stored("f32[2048,16,64]{2,1,0}") == []
    assert stored("f32[2048,128,128]{2,1,0:T(8,128)}") == []
    assert stored("f32[2048,128,64]{2,1,0:T(8,128)S(1)}") == []
    text = "f32[2048,128,64] is stored in 128 MiB, not 64, at encoder/block.py:102"
    assert stored("f32[2048,128,64]{2,1,0:T(8,128)}") == [("padded arrays", text)]


def test_attention_that_is_computed_again() -> None:
    def attention(forward: int) -> list[tuple[str, str]]:
        kernel = '%k{} = (bf16[2,4,96,64]{{3,2,1,0}}) custom-call(%q), custom_call_target="__cudnn$fmhaSoftmax{}"'
        lines = [kernel.format(at, "") for at in range(forward)] + [kernel.format("b", "Backward")]
        return flags(written("\n  ".join(lines)))

    assert not attention(1)
    assert [kind for kind, _ in attention(2)] == ["attention run twice"]


def test_there_is_a_test_of_each() -> None:
    assert len(FINDERS) == 7
