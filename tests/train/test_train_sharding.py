"""The mesh is what was asked for, every array lies as its rule says, and nothing is made whole on one device."""

import dataclasses
import functools
from pathlib import Path

import jax
import pytest
from jax.sharding import PartitionSpec as P
from tiny_run import N_CENTERS, config_of, replace_encoder

from ove.config import MeshConfig
from ove.errors import ConfigError
from ove.train.init import init_state
from ove.train.sharding import (
    axis_sizes,
    check_division,
    leaf_name,
    make_mesh,
    placement,
    sharded_axes,
    sharded_axes_of_layer,
    spec_of,
    state_shardings,
)


@pytest.mark.parametrize(
    ("config", "n", "sizes"),
    [
        (MeshConfig(), 1, {"data": 1, "fsdp": 1}),
        (MeshConfig(), 128, {"data": 128, "fsdp": 1}),
        (MeshConfig(fsdp=8), 8, {"data": 1, "fsdp": 8}),
        (MeshConfig(data=2, fsdp=4), 8, {"data": 2, "fsdp": 4}),
        (MeshConfig(fsdp=2, bank=2), 8, {"data": 2, "fsdp": 2, "bank": 2}),
    ],
)
def test_axes_make_up_the_devices(config: MeshConfig, n: int, sizes: dict[str, int]) -> None:
    assert axis_sizes(config, n) == sizes


@pytest.mark.parametrize("config", [MeshConfig(fsdp=3), MeshConfig(data=4), MeshConfig(fsdp=16), MeshConfig(data=2, bank=8)])
def test_axes_that_do_not_are_refused(config: MeshConfig) -> None:
    with pytest.raises(ConfigError, match=r"do not make up the 8 devices; give numbers whose product that is"):
        make_mesh(config)


def test_neighbours_share_parameters_and_banks() -> None:
    mesh = make_mesh(MeshConfig(fsdp=2, bank=2))
    assert [d.id for d in mesh.devices[0].ravel()] == [0, 1, 2, 3]
    assert placement(mesh).bank_axes == ("fsdp", "bank") and placement(mesh).n_shards == 4
    assert placement(make_mesh(MeshConfig(fsdp=2))).n_shards == 8


@dataclasses.dataclass(frozen=True)
class SliceDevice:
    """What the mesh asks of a device of several TPU slices."""

    id: int
    slice_index: int
    platform: str = "cpu"
    device_kind: str = "made up"
    process_index: int = 0


def test_slices_lie_along_data_whatever_the_order_of_their_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = [SliceDevice(n, n % 2) for n in range(8)]  # even ones in one slice, odd ones in the other
    monkeypatch.setattr(jax, "devices", lambda: devices)
    mesh = make_mesh(MeshConfig(fsdp=2, bank=2))
    assert [[device.id for device in part.ravel()] for part in mesh.devices] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    mesh = make_mesh(MeshConfig(fsdp=2))
    assert [[device.id for device in part] for part in mesh.devices] == [[0, 2], [4, 6], [1, 3], [5, 7]]
    assert [device.id for device in make_mesh().devices.ravel()] == [0, 2, 4, 6, 1, 3, 5, 7]


def test_an_axis_of_one_device_cuts_nothing_and_a_layer_has_one_axis_less() -> None:
    devices = jax.devices()[:2]
    for fsdp, spec in ((1, P()), (2, P(None, None, "fsdp"))):
        assert spec_of("params/blocks/mlp/fc1/kernel", make_mesh(MeshConfig(fsdp=fsdp), devices)) == spec
    specs = {"fc1": {"kernel": P(None, None, "fsdp"), "bias": P()}, "fc2": {"kernel": P(None, "fsdp")}}
    assert sharded_axes(specs) == (("fc1/kernel", 2), ("fc2/kernel", 1))
    assert sharded_axes_of_layer(specs) == (("fc1/kernel", 1), ("fc2/kernel", 0))


def test_batches_that_cannot_be_split_are_refused() -> None:
    config = config_of(Path(), grad_accum_steps=2)
    check_division(config, 4)
    with pytest.raises(ConfigError, match=r"8 devices times train\.grad_accum_steps = 2 microbatches; give a multiple of 16"):
        check_division(config, 8)
    config = dataclasses.replace(replace_encoder(config_of(Path()), mlp=132), mesh=MeshConfig(fsdp=8))
    with pytest.raises(ConfigError, match=r"mesh\.fsdp = 8 does not divide encoder\.mlp = 132"):
        check_division(config, 8)


@pytest.fixture(scope="module")
def fresh() -> tuple:
    """(compiled initialisation, its state's shardings, abstract state) with parameters cut in four."""
    config = dataclasses.replace(replace_encoder(config_of(Path()), embedding=32), mesh=MeshConfig(fsdp=4))
    mesh = make_mesh(config.mesh)
    make = functools.partial(init_state, config, dict.fromkeys(N_CENTERS, 4096), placement(mesh).n_shards)
    abstract = jax.eval_shape(make)
    shardings = state_shardings(abstract, mesh)
    return jax.jit(make, out_shardings=shardings).lower().compile(), shardings, abstract


def test_kernels_moments_and_rows_are_cut_and_the_rest_is_not(fresh: tuple) -> None:
    _, shardings, abstract = fresh
    specs = {leaf_name(path): at.spec for path, at in jax.tree_util.tree_flatten_with_path(shardings)[0]}
    shapes = {leaf_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(abstract)[0]}
    for name, spec in specs.items():
        if name.startswith("banks/") and "/rows" in name:
            assert spec == P(("data", "fsdp")), name
        elif name.endswith("kernel"):
            assert spec == P(*[None] * (len(shapes[name]) - 1), "fsdp"), name
        else:
            assert spec == P(), name
    cut = [name for name in specs if name.endswith("kernel")]
    assert len(cut) == 3 * len([name for name in cut if name.startswith("params/")]) > 3 * 10  # parameters and two moments


def test_a_fresh_state_is_made_in_pieces(fresh: tuple) -> None:
    compiled, _, _ = fresh
    state = compiled()
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves(state._replace(rng=jax.random.key_data(state.rng))))
    sizes = compiled.memory_analysis()
    # Banks in eight pieces, kernels in four; at no time is there an array of the size of a bank, nor one that is copied.
    assert sizes.output_size_in_bytes + sizes.temp_size_in_bytes < whole / 3
    assert "4096,32]" not in compiled.as_text().replace(" ", "")
    alone = jax.jit(functools.partial(init_state, *_arguments()))()
    for name in ("vid", "obj"):
        assert (jax.device_get(state.banks[name].rows) == jax.device_get(alone.banks[name].rows)).all()
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(alone.params), strict=True):
        assert (jax.device_get(a) == jax.device_get(b)).all()


def _arguments() -> tuple:
    return replace_encoder(config_of(Path()), embedding=32), dict.fromkeys(N_CENTERS, 4096), 8
