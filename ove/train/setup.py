"""What is checked before a run starts, and the files it leaves of itself then."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh

from ove.config import RunConfig
from ove.config.mapping import to_mapping
from ove.distributed import Processes
from ove.errors import ConfigError
from ove.stream.pipeline import OnBad
from ove.stream.samples import BadRecord
from ove.train.hosts.workdir import naming
from ove.train.init import TrainState
from ove.train.sharding import check_division

Report = Callable[[str], None]
QUARANTINE = "quarantine.jsonl"


def check(config: RunConfig, workdir: Path, mesh: Mesh) -> None:
    """ConfigError if the run cannot be trained as configured on these devices, or `workdir` is no folder."""
    if not config.batches.heads:
        raise ConfigError("batches.heads is empty; name at least one bank to train, for example {bank: 'vid', batch_size: 16}.")
    if not config.encoder.head:
        raise ConfigError("encoder.head is False; training needs the pooling head, which makes the embedding.")
    check_division(config, mesh.size)
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"{workdir}: is a file; give a folder as --workdir.")


def agree(processes: Processes, config: RunConfig, workdir: Path, data_fingerprint: str) -> None:
    """ConfigError, in all processes, if they were not started with one configuration, one workdir and the same data."""
    configuration = json.dumps(to_mapping(config), sort_keys=True).encode()
    processes.agree("configuration", hashlib.sha256(configuration).hexdigest())
    processes.agree("--workdir", str(workdir.resolve()))
    processes.agree("data (records or labels)", data_fingerprint)


def save_config(config: RunConfig, workdir: Path) -> None:
    """Writes `workdir/config.json`."""
    temporary = workdir / ".config.json.tmp"
    with naming(temporary):
        temporary.write_text(json.dumps(to_mapping(config), indent=2) + "\n")
    os.replace(temporary, workdir / "config.json")


def save_table(table: str, workdir: Path, report: Report) -> None:
    """Writes the table of the parameters to `workdir/parameters.txt`, and to the screen."""
    path = workdir / "parameters.txt"
    with naming(path):
        path.write_text(table + "\n")
    report(table)


def quarantine(path: Path, report: Report) -> OnBad:
    """Notes each bad record once in a file, over restarts too, and on the screen."""
    lines = path.read_text().splitlines() if path.exists() else []
    entries = [json.loads(line) for line in lines if line.endswith("}")]  # a crash may have cut the last one off
    noted = {(entry["shards"], entry["record"]) for entry in entries}

    def note(bad: BadRecord) -> None:
        if (bad.shards, bad.record) not in noted:
            noted.add((bad.shards, bad.record))
            report(f"record {bad.record} of {bad.shards} is set aside: {bad.reason}")
            with naming(path), path.open("a") as file:
                file.write(json.dumps(vars(bad), ensure_ascii=False) + "\n")

    return note


def described(state: TrainState, mesh: Mesh) -> str:
    """One line for the screen: what is trained, and on what."""
    encoder = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    banks = ", ".join(f"{name} {len(bank.rows):,}" for name, bank in state.banks.items())
    device, hosts = mesh.devices.flat[0].device_kind, jax.process_count()
    where = f"{mesh.size} device{'s' * (mesh.size > 1)} ({device})" + (f" of {hosts} processes" if hosts > 1 else "")
    return f"encoder of {encoder:,} parameters; centers: {banks}; {where}"
