"""What a run sees of its own steps: each is checked, alarms are given, and from time to time all of it makes a line."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax
from jax.sharding import Mesh

from ove.config import RunConfig
from ove.records import Batch
from ove.train.monitor.alarms import Alarms
from ove.train.monitor.guards import KeyOf, check_step
from ove.train.monitor.metrics import Averages
from ove.train.monitor.throughput import Workload, memory, peak_flops, rates, workload


class Watch:
    """Looks at the metrics of every step of a run."""

    def __init__(
        self,
        config: RunConfig,
        workdir: Path,
        mesh: Mesh,
        n_centers: Mapping[str, int],
        key_of: KeyOf,
        report: Callable[[str], None],
    ) -> None:
        """`key_of` tells what the samples of a bad batch are called; `report` gets the alarms."""
        self._config, self._workdir, self._n_centers, self._key_of = config, workdir, n_centers, key_of
        self._report, self._n_devices = report, mesh.size
        self._peak = peak_flops(mesh.devices.flat[0].device_kind, config.encoder.compute, config.train.peak_tflops)
        self._alarms, self._averages = Alarms(config), Averages()
        self._work: Workload | None = None

    def look(self, step: int, values: dict[str, float], batches: Mapping[str, Batch]) -> None:
        """Takes the metrics of a finished step; TrainingStopped where they must end the run (`ove.train.monitor.guards`)."""
        if self._work is None:
            tokens_of = {bank: batch.positions.shape[1] for bank, batch in batches.items()}
            self._work = workload(self._config, self._n_centers, tokens_of)
        for sentence in check_step(self._config.train, step, values, batches, self._workdir, self._key_of):
            self._report(sentence)
        for alarm in self._alarms.of_step(step, values):
            self._report(alarm)
        self._averages.add(values)

    def line(self, lap: Mapping[str, float]) -> dict[str, float]:
        """All that is logged of the steps since the last line, of which there is at least one, given `Clock.lap` of them."""
        assert self._work is not None, "a line follows a step"
        speed = rates(self._work, lap["step_ms"], self._n_devices, self._peak)
        return self._averages.take() | dict(lap) | speed | memory(jax.local_devices())
