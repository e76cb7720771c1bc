"""Options of commands that run as several processes."""

import argparse
import os

from ove import distributed as processes

from .numbers import number


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds `--coordinator`, `--num-processes`, `--process-id` and `--distributed`."""
    several = parser.add_argument_group("several processes (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID)")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 is, with a free port")
    several.add_argument("--num-processes", metavar="N", type=number(1), help="how many processes are started")
    several.add_argument("--process-id", metavar="I", type=number(0), help="which of them this is, 0 … N − 1")
    several.add_argument("--distributed", action="store_true", help="ask the cluster for all three")


def join_processes(arguments: argparse.Namespace, barrier_timeout_s: float, heartbeat_timeout_s: float) -> None:
    """Connects the processes that the options, the environment or the cluster name, if there are any.

    ConfigError for a part of the address, or if the others do not come (`ove.distributed.initialize`).
    """
    address = processes.address_of(arguments.coordinator, arguments.num_processes, arguments.process_id, os.environ)
    if address or arguments.distributed or processes.cluster_detected(os.environ):
        processes.initialize(address, barrier_timeout_s, heartbeat_timeout_s)
