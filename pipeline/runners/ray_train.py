"""Ray Train: processes on a cluster that train one model together, as torchrun starts them on one machine."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch
from ray.train import RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer

from pipeline.runners.ray import environment


class RayTrain:
    """Trains on Ray Train's workers.

    Args:
        workers: Processes.
        num_cpus: CPU cores that each holds, which is also the number of its threads.
        num_gpus: GPUs that each holds; 0 trains on the CPU.
        address: A running cluster, whose machines share the files; None: a Ray on this machine alone.
    Raises:
        ValueError: If a number is out of its range.
    """

    def __init__(self, workers: int, num_cpus: float = 1.0, num_gpus: float = 0.0, address: str | None = None) -> None:
        if workers < 1 or num_cpus <= 0 or num_gpus < 0:
            raise ValueError(
                f"ray: expected workers >= 1, num_cpus > 0 and num_gpus >= 0, got {workers}, {num_cpus} and {num_gpus}"
            )
        self.workers, self.num_cpus, self.num_gpus, self.address = workers, num_cpus, num_gpus, address

    def run(self, work: Callable[[Any, str], Any], order: Any) -> None:
        """Has every worker do `work(order, device)` with torch.distributed joined, and waits.

        Raises:
            ValueError: If the machine has less than the workers hold, or a worker refused something, with what it said.
            WorkerGroupError: If a worker failed otherwise.
        """
        self._start()
        with tempfile.TemporaryDirectory(prefix="ray_train_") as folder:
            trainer = TorchTrainer(
                _each,
                train_loop_config={"work": work, "order": order},
                torch_config=TorchConfig(backend="nccl" if self.num_gpus else "gloo"),
                scaling_config=ScalingConfig(
                    num_workers=self.workers,
                    use_gpu=bool(self.num_gpus),
                    resources_per_worker={"CPU": self.num_cpus} | ({"GPU": self.num_gpus} if self.num_gpus else {}),
                ),
                run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees that of the trainer before
                    storage_path=folder, worker_runtime_env={"env_vars": environment(max(1, int(self.num_cpus)))}
                ),
            )
            try:
                trainer.fit()
            except WorkerGroupError as error:
                if refused := _refusals(error):
                    raise ValueError(str(refused[0])) from error
                raise

    def _start(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not ray.is_initialized():
            quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
            if self.address is not None:
                ray.init(address=self.address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        if self.address is None:
            for name, each in (("CPU", self.num_cpus), ("GPU", self.num_gpus)):
                have, needed = ray.cluster_resources().get(name, 0), self.workers * each
                if have < needed:
                    raise ValueError(
                        f"ray: expected a machine with {needed:g} {name}s for {self.workers} workers, found {have:g}"
                    )


def _refusals(error: WorkerGroupError) -> list[ValueError]:
    """What workers refused, in their own words; the others failed because of it, or otherwise."""
    # Ray wraps what a worker raised: its words are the traceback then.
    failures = [getattr(failure, "_base_exc", failure) for _, failure in sorted(error.worker_failures.items())]
    return [failure for failure in failures if isinstance(failure, ValueError)]


def _each(given: dict[str, Any]) -> None:
    """In a worker, whose process group Ray Train has joined."""
    device = ray.train.torch.get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    given["work"](given["order"], str(device))
