"""Centers go through files unchanged, block by block, and files that do not fit are refused with what is wrong."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from bank_problem import C, E, centers_in_rows, fresh_bank, placement_on

from ove.centers import center_files
from ove.centers.center_files import blocks_of, open_centers, read_rows, write_centers
from ove.errors import BadInput


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(center_files, "BLOCK_ROWS", 16)


def centers(seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(C, E)).astype(dtype)


def read(path: Path, n_devices: int = 8, n_centers: int = C, width: int = E) -> jax.Array:
    placement = placement_on(n_devices)
    return read_rows(path, n_centers, width, placement.sharding(placement.rows), placement.n_shards)


@pytest.mark.parametrize(("ending", "n_files"), [(".npy", 1), (".safetensors", 1), (".npy", 4), (".safetensors", 3)])
def test_a_bank_is_the_same_after_files_and_other_devices(tmp_path: Path, ending: str, n_files: int) -> None:
    bank = fresh_bank(placement_on(8))
    written = write_centers(blocks_of(bank.rows, C), C, E, tmp_path / "out" / f"vid{ending}", n_files)
    assert len(written) == n_files and sorted((tmp_path / "out").iterdir()) == written
    rows = read(written[0] if n_files == 1 else tmp_path / "out", 3)
    assert rows.shape == (204, E)
    np.testing.assert_array_equal(rows[:C], bank.rows[:C])
    assert (np.asarray(rows[C:]) == 0).all()
    others = np.concatenate([np.load(f) if ending == ".npy" else safetensors.numpy.load_file(f)["centers"] for f in written])
    np.testing.assert_array_equal(others[centers_in_rows(C)], np.asarray(bank.rows)[:C])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, jnp.bfloat16])
def test_all_kinds_of_floating_point_numbers_are_read(tmp_path: Path, dtype: type) -> None:
    table = centers(dtype=dtype)
    safetensors.numpy.save_file({"any": table}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read(tmp_path / "a.safetensors", 2)[:C], table[centers_in_rows(C)].astype(np.float32))


@pytest.mark.parametrize("n_centers", [1, 7, 8, 9, 17, 31])
def test_devices_with_padding_alone_give_no_rows(n_centers: int) -> None:
    placement = placement_on(8)
    rows = np.arange(-(-n_centers // 8) * 8, dtype=np.float32)[:, None] + np.zeros((1, E), np.float32)
    blocks = list(blocks_of(jax.device_put(rows, placement.sharding(placement.rows)), n_centers))
    found = np.concatenate([block[:, 0] for _, block in blocks])
    np.testing.assert_array_equal(found, np.arange(n_centers))
    assert [first for first, _ in blocks] == [int(block[0, 0]) for _, block in blocks]


def test_only_the_rows_of_a_shard_are_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "a.npy", centers())
    most = []
    whole = center_files.CenterFiles.read
    monkeypatch.setattr(center_files.CenterFiles, "read", lambda self, which: most.append(len(which)) or whole(self, which))
    read(tmp_path / "a.npy", 8)
    assert max(most) == 16 and sum(most) == C


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", centers())
    with pytest.raises(BadInput, match=r"a\.npy: its centers have width 24, the encoder's embeddings width 32; use centers"):
        read(tmp_path / "a.npy", width=32)
    with pytest.raises(BadInput, match="contains 203 centers, but the labels refer to 300"):
        read(tmp_path / "a.npy", n_centers=300)
    with pytest.raises(BadInput, match=r"nothing: contains no centers; give a file \.npy or \.safetensors"):
        open_centers(tmp_path / "nothing")
    (tmp_path / "b.npy").write_bytes(b"no table")
    with pytest.raises(BadInput, match=r"b\.npy: cannot be read as \.npy"):
        open_centers(tmp_path / "b.npy")
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(BadInput, match=r"b\.safetensors: cannot be read .*bytes of header, more than OVE_MAX_HEADER_BYTES"):
        open_centers(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").write_bytes((40).to_bytes(8, "little") + b"{" * 30)
    with pytest.raises(BadInput, match=r"b\.safetensors: cannot be read .*its header is truncated"):
        open_centers(tmp_path / "b.safetensors")
    np.save(tmp_path / "c.npy", np.arange(12).reshape(3, 4))
    with pytest.raises(BadInput, match=r"contains int64\[3, 4\]; centers must be a 2-D floating-point"):
        open_centers(tmp_path / "c.npy")
    with pytest.raises(BadInput, match=r"has the suffix \.pt; give a file"):
        (tmp_path / "d.pt").touch()
        open_centers(tmp_path / "d.pt")
    (tmp_path / "parts").mkdir()
    np.save(tmp_path / "parts" / "0.npy", centers())
    np.save(tmp_path / "parts" / "1.npy", centers()[:, :5])
    with pytest.raises(BadInput, match=r"1\.npy: its centers have width 5, those of 0\.npy width 24"):
        open_centers(tmp_path / "parts")
    table = centers()
    table[7, 3] = np.nan
    np.save(tmp_path / "e.npy", table)
    with pytest.raises(BadInput, match="center 7 has values that are not finite"):
        read(tmp_path / "e.npy")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def blocks():
        yield 0, np.zeros((10, E), np.float32)
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        write_centers(blocks(), C, E, tmp_path / "a.npy", 2)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match=r"end the name in \.npy or \.safetensors"):
        write_centers(blocks(), C, E, tmp_path / "a.txt")
