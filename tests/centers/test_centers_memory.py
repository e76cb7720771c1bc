"""The compiled step copies no bank and needs no memory that grows with one."""

import re

import jax
import jax.numpy as jnp
import pytest
from bank_problem import B, E, L, embeddings_of, fresh_bank, labels_of, placement_on

from ove.centers.gradient import BankPlan
from ove.centers.objective import bank_step
from ove.centers.rows import RowAdamW
from ove.config import CentersConfig

C, SAMPLED = 40_000, 400


def compiled(n_devices: int, n_centers: int, config: CentersConfig) -> jax.stages.Compiled:
    placement, plan = placement_on(n_devices), BankPlan("vid", n_centers, SAMPLED, L)

    def step(bank, embeddings, labels, key, number):
        return bank_step(bank, embeddings, labels, key, number, RowAdamW(1e-3), plan=plan, placement=placement, config=config)

    sharding = placement.sharding(placement.samples)
    batch = (jax.device_put(x, sharding) for x in (embeddings_of(0), labels_of(0, n_centers)))
    bank = fresh_bank(placement, n_centers)
    return jax.jit(step, donate_argnums=0).lower(bank, *batch, jax.random.key(0), jnp.int32(0)).compile()


def copies_of(program: str, shape: str) -> list[str]:
    """Instructions that put a table of that shape somewhere else, rather than change it where it is."""
    made = re.findall(rf"= f32\[{shape}\]\S* (\S+?)\(", program)
    return [name for name in made if name.startswith(("copy", "transpose", "concatenate", "add", "multiply", "broadcast"))]


@pytest.mark.parametrize(
    ("n_devices", "config"),
    [(8, CentersConfig()), (1, CentersConfig(chunk_rows=64)), (2, CentersConfig(loss="margin_softmax", decay="elapsed"))],
    ids=["8", "1, chunks", "2, softmax"],
)
def test_no_bank_is_copied(n_devices: int, config: CentersConfig) -> None:
    step = compiled(n_devices, C, config)
    program = step.as_text()
    assert f"f32[{C // n_devices},{E}]" in program
    assert copies_of(program, f"{C // n_devices},{E}") == []
    sizes = step.memory_analysis()
    tables = 3 * C // n_devices * E * 4
    assert sizes.alias_size_in_bytes >= tables
    assert sizes.temp_size_in_bytes < tables / 3


def test_a_copy_would_be_seen() -> None:
    table = jnp.zeros((C, E))
    program = jax.jit(lambda x: (x.at[3].set(1.0), x.sum())).lower(table).compile().as_text()
    assert copies_of(program, f"{C},{E}")


def test_temporary_memory_does_not_grow_with_the_bank() -> None:
    small, large = (compiled(8, n, CentersConfig()).memory_analysis().temp_size_in_bytes for n in (C, 4 * C))
    assert large <= 1.02 * small


def test_chunks_bound_the_memory() -> None:
    whole, parts = (compiled(1, C, CentersConfig(chunk_rows=n)).memory_analysis().temp_size_in_bytes for n in (4096, 64))
    slots = SAMPLED + B * L
    assert parts < whole
    assert parts < 4 * (slots * E + 3 * B * E + 3 * 64 * B + 6 * 64 * E + 16 * slots)
