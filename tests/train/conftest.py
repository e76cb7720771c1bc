"""Programs that several tests compile alike are compiled once."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest


@pytest.fixture(scope="session")
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for jax's compilation cache: that of JAX_COMPILATION_CACHE_DIR, else one of this run of the tests."""
    given = jax.config.jax_compilation_cache_dir
    return Path(given) if given else tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="session", autouse=True)
def _cache(compiled_programs: Path) -> Iterator[None]:
    given = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(compiled_programs))
    yield
    jax.config.update("jax_compilation_cache_dir", given)
