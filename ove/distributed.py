"""The processes of one run: how they find each other, exchange words and arrays, wait within time limits, and end."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed  # the only way to `service`; orbax and flax take it too
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Shaped

from ove.errors import ConfigError, OveError, ProcessLost

EXIT_PREEMPTED = 75
"""Exit code of a run that was told to stop, has saved and can be started again (EX_TEMPFAIL of sysexits.h)."""
_ANY_TIME_S = 1e9
_FIRST_GOES_LAST_S = 1.0
_AT_ONCE_BYTES = 2**26
"""How much of an array is on its way at a time, and so on every device."""
_COUNTS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES", "MEGASCALE_NUM_SLICES")
"""Variables in which SLURM's srun, Open MPI's mpirun, and people say how many processes there are; Multislice: slices."""
_HOSTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")
"""Variables in which GKE lists the hosts of a TPU slice, with commas between them."""
_HOSTS_FILE = "TPU_PROCESS_ADDRESSES_PATH"
"""Variable that names a file with that list, which jax 0.11 reads first."""


@dataclass(frozen=True)
class Address:
    """Where the processes of a run meet, and which of them this is."""

    coordinator: str
    """HOST:PORT of process 0, which the others must be able to reach."""
    count: int
    index: int
    """0 … count − 1."""


def address_of(coordinator: str | None, count: int | None, index: int | None, env: Mapping[str, str]) -> Address | None:
    """Returns the address given in full, by arguments, else by JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID.

    None if nothing of it is given; ConfigError if only a part is, or it makes no sense.
    """
    given = {
        "--coordinator": coordinator or env.get("JAX_COORDINATOR_ADDRESS"),
        "--num-processes": count if count is not None else env.get("JAX_NUM_PROCESSES"),
        "--process-id": index if index is not None else env.get("JAX_PROCESS_ID"),
    }
    lacking = [name for name, value in given.items() if value in (None, "")]
    if len(lacking) == len(given):
        return None
    if lacking:
        raise ConfigError(f"{', '.join(lacking)} must be given too; each process needs all three of {', '.join(given)}.")
    place, *numbers = map(str, given.values())
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--coordinator {place}: must be HOST:PORT of process 0, for example 10.0.0.1:8476.")
    if not all(number.isdecimal() for number in numbers) or not int(numbers[1]) < int(numbers[0]):
        raise ConfigError(f"--process-id {numbers[1]} must be within 0 … --num-processes − 1, and that is {numbers[0]}.")
    return Address(place, int(numbers[0]), int(numbers[1]))


def cluster_detected(env: Mapping[str, str]) -> bool:
    """Returns whether SLURM, Open MPI or GKE say that this process is one of several."""
    counts = [env[name] for name in _COUNTS if name in env]
    hosts = [env[name] for name in _HOSTS if name in env]
    if path := env.get(_HOSTS_FILE):
        with contextlib.suppress(FileNotFoundError):
            hosts.append(Path(path).read_text())
    return any(count.isdecimal() and int(count) > 1 for count in counts) or any("," in names for names in hosts)


def initialize(address: Address | None, barrier_timeout_s: float, heartbeat_timeout_s: float) -> None:
    """Connects this process with the others of its run; to be called before anything else of jax.

    Without an address jax asks the cluster (SLURM, Open MPI, Cloud TPU, GKE) for it. A process not heard of for
    `heartbeat_timeout_s` ends all others. ConfigError if the others cannot be found or do not come within `barrier_timeout_s`.
    """
    sys.excepthook = _exit_after
    try:
        jax.distributed.initialize(
            address.coordinator if address else None,
            address.count if address else None,
            address.index if address else None,
            cluster_detection_method="deactivate" if address else None,
            initialization_timeout=int(barrier_timeout_s),
            heartbeat_timeout_seconds=int(heartbeat_timeout_s),
            shutdown_timeout_seconds=int(barrier_timeout_s),
        )
    except ValueError as error:
        raise ConfigError(
            f"nothing here tells which processes there are ({error}); give --coordinator, --num-processes and --process-id."
        ) from error
    except RuntimeError as error:
        who = f"process {address.index} of {address.count}" if address else "this process"
        raise ConfigError(
            f"{who} found no connection with the others within {barrier_timeout_s:g} s ({str(error).splitlines()[0][:200]}); "
            "check that all were started and that the port of process 0 is free and can be reached."
        ) from error


def _exit_after(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Serves as sys.excepthook: after an unforeseen error, too, a process does not wait for the others."""
    sys.__excepthook__(kind, error, trace)
    exit(1)


def exit(code: int) -> NoReturn:
    """Ends this process; after an error at once, without waiting for processes or saves that may be gone.

    At once also when it is the only one: what libraries still have to say of a save that failed would come after our sentence.
    """
    if code not in (0, EXIT_PREEMPTED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def service() -> Any:
    """Returns the client with which jax.distributed's processes meet and exchange words; None before `initialize`. Private."""
    return distributed.global_state.client


class Processes:
    """All processes of a run, as one of them sees them. All must call its methods in the same order."""

    def __init__(self, limit_s: float) -> None:
        """`limit_s`: how long a process waits for the others."""
        self.index, self.count = jax.process_index(), jax.process_count()
        self.limit_s = limit_s
        self._client = service() if self.count > 1 else None
        self._meetings, self._last_word = 0, ""

    def barrier(self, name: str) -> None:
        """Waits until every process has come here; ProcessLost, with who is missing, if one does not in time."""
        self.all_gather(name, "")

    def all_gather(self, name: str, word: str, limit_s: float | None = None) -> list[str]:
        """Returns what each process says here, in their order; ProcessLost, with who is missing, if one does not come in time.

        `limit_s` in place of the usual one; 0: in any time.
        """
        if self._client is None:
            return [word]
        self._meetings += 1
        place = f"ove/{self._meetings} {name}"
        limit_s = self.limit_s if limit_s is None else limit_s or _ANY_TIME_S
        mine = f"{place}/{self.index}"
        self._client.key_value_set(mine, f"={word}")  # an empty value is none
        try:
            self._client.wait_at_barrier(place, int(1000 * limit_s))
        except jax.errors.JaxRuntimeError as error:
            missing = sorted(set(range(self.count)) - self._said(place).keys())
            who = f"process {', '.join(map(str, missing))} of {self.count}" if missing else "another process"
            raise ProcessLost(
                f"{who} did not come to '{name}' within {limit_s:g} s, where process {self.index} waits; see what it "
                f"said last ({str(error).splitlines()[0][:120]})."
            ) from error
        said = self._said(place)
        if self._last_word:  # who has come here has read what was said before
            self._client.key_value_delete(self._last_word)
        self._last_word = mine
        return [said[index] for index in range(self.count)]

    def assert_equal(self, name: str, word: str) -> None:
        """Raises ConfigError if not all processes say the same."""
        said = self.all_gather(name, word)
        other = [index for index, theirs in enumerate(said) if theirs != said[0]]
        if other:
            self.end_together(name)
            raise ConfigError(
                f"process {', '.join(map(str, other))} has another {name} than process 0; start all with the same command and "
                "the same files."
            )

    def end_together(self, name: str) -> None:
        """Is called by all before all raise: none goes before every process has heard why, and the first, through which they
        hear of each other, goes last."""
        self.barrier(f"end of {name}")
        if self.index == 0 and self.count > 1:
            time.sleep(_FIRST_GOES_LAST_S)

    @contextlib.contextmanager
    def as_process_lost(self) -> Iterator[None]:
        """Turns what fails between the devices of several processes into a ProcessLost that says where to look."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if self.count == 1:
                raise
            raise ProcessLost(
                f"process {self.index} of {self.count}: {str(error).splitlines()[0][:200]}; if another process has ended, see "
                "what it said last. Started again, all go on from the newest checkpoint."
            ) from error

    @contextlib.contextmanager
    def all_or_none(self, name: str) -> Iterator[None]:
        """Lets each process work for itself; then all have come here, or all end, knowing why the first of them failed.

        For errors of ours and of the system. Processes wait for each other as long as `limit_s` lets them.
        """
        failed: OveError | OSError | None = None
        try:
            yield
        except (OveError, OSError) as error:
            if self.count == 1:
                raise
            failed = error
        said = self.all_gather(name, str(failed or ""))
        if not any(said):
            return
        self.end_together(name)
        if failed is not None:
            raise failed
        index, sentence = next((index, text) for index, text in enumerate(said) if text)
        raise ProcessLost(f"process {index} of {self.count} ended: {sentence}")

    def _said(self, place: str) -> dict[int, str]:
        assert self._client is not None
        entries = self._client.key_value_dir_get(f"{place}/")
        return {int(key.rpartition("/")[2]): value.removeprefix("=") for key, value in entries}


def processes_of(mesh: Mesh) -> list[int]:
    """Returns the processes whose devices make up a mesh, ascending."""
    return sorted({device.process_index for device in mesh.devices.flat})


def is_main(mesh: Mesh) -> bool:
    """Returns whether this process is the first of a mesh, which reads and writes what all of them have in common."""
    return processes_of(mesh)[0] == jax.process_index()


def gather_to_host(mesh: Mesh, rows: Array) -> Shaped[np.ndarray, "n ..."]:
    """Returns an array that is sharded by row over a mesh of one axis, on the host of every process."""
    if rows.is_fully_addressable:
        return np.asarray(rows)
    n = mesh.devices.size
    mine = len(rows) // n
    piece = max(1, min(mine, _AT_ONCE_BYTES * mine // rows.nbytes))
    found = np.empty((n, mine, *rows.shape[1:]), rows.dtype)
    for start in range(0, mine, piece):
        start = min(start, mine - piece)
        found[:, start : start + piece] = np.asarray(_gather(mesh, piece)(rows, np.int32(start)))
    return found.reshape(rows.shape)


@lru_cache(maxsize=16)
def _gather(mesh: Mesh, piece: int) -> Any:
    (rows,) = mesh.axis_names

    def gather(mine: Array, start: Array) -> Array:
        return jax.lax.all_gather(jax.lax.dynamic_slice_in_dim(mine, start, piece), rows)

    specs = (PartitionSpec(rows), PartitionSpec())
    return jax.jit(jax.shard_map(gather, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False))


def broadcast_one_to_all(
    mesh: Mesh, rows: Shaped[np.ndarray, "n ..."], source: int | None = None
) -> Shaped[np.ndarray, "n ..."]:
    """Returns the array of the process `source` (by default the first of the mesh), bit for bit, on all.

    The others give one of the same shape and type, for example their own: machines of different kinds may compute from the
    same numbers what differs in the last bit.
    """
    processes = processes_of(mesh)
    if len(processes) == 1:
        return rows
    is_source = jax.process_index() == (processes[0] if source is None else source)
    bits = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
    found = np.empty_like(bits)
    for start in range(0, len(bits), _AT_ONCE_BYTES):
        piece = bits[start : start + _AT_ONCE_BYTES]
        words = np.zeros(-(-len(piece) // 4), np.uint32)  # which every kind of device can add up
        words.view(np.uint8)[: len(piece)] = piece
        words = np.asarray(multihost_utils.broadcast_one_to_all(words, is_source))
        found[start : start + len(piece)] = words.view(np.uint8)[: len(piece)]
    return found.view(rows.dtype).reshape(rows.shape)


def broadcast_json(mesh: Mesh, value: Any) -> Any:
    """Returns the JSON value of the first process of the mesh on all."""
    if len(processes_of(mesh)) == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    length = int(broadcast_one_to_all(mesh, np.array([len(text)]))[0])
    return json.loads(broadcast_one_to_all(mesh, text if is_main(mesh) else np.zeros(length, np.uint8)).tobytes())
