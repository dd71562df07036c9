"""Placement of arrays: one mesh over all devices, over which batches are sharded."""

import dataclasses
import math
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"
LEAST_DIVIDED = 1024  # elements; smaller arrays cost more to gather than to replicate
START = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh of one axis, and what is sharded over it besides the batch.

    Attributes:
        mesh: Mesh with the axis :data:`AXIS`.
        shard_params: Whether parameters, their averages and the optimiser state are
            sharded and gathered at each step. Otherwise they are replicated.
    """

    mesh: Mesh
    shard_params: bool = False

    def check_batch(self, batch_size: int, parts: int = 1) -> None:
        """Refuses a batch that the devices cannot share equally.

        Args:
            batch_size: Images per step.
            parts: Micro-batches per step.

        Raises:
            ValueError: If they cannot; the message names sizes that work.
        """
        unit = self.mesh.size * parts
        if batch_size % unit:
            down = batch_size // unit * unit
            sizes = f"{down} or {down + unit}" if down else f"{unit}"
            devices = math.gcd(
                batch_size // math.gcd(batch_size, parts), self.mesh.size
            )
            each = f" in {parts} parts" if parts > 1 else ""
            raise ValueError(
                f"A batch of {batch_size} images cannot be divided among "
                f"{self.mesh.size} devices{each}: choose a batch size of {sizes}, or "
                f"{devices} device{'s' * (devices > 1)} (--devices {devices})."
            )

    def rounded(self, batch_size: int) -> int:
        """Rounds a batch size up to a multiple of the number of devices."""
        return -(-batch_size // self.mesh.size) * self.mesh.size

    def replicate(self, tree: Any) -> Any:
        """Replicates arrays on all devices, committed like the outputs of a step.

        Otherwise the placement would change between the first and the second step,
        which would be compiled again.
        """
        return jax.tree.map(lambda x: _put(x, NamedSharding(self.mesh, P())), tree)

    def divide(self, tree: Any) -> Any:
        """Shards batches from the host over the devices.

        Every process passes the whole batch and keeps the rows of its devices.
        """
        rows = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(lambda x: _put(x, rows), tree)

    def feed(self, tree: Any, indices: Any) -> Any:
        """Gathers a batch from data on the host; each process only for its devices.

        Args:
            tree: Arrays of the whole data set, on every host.
            indices: Indices of the whole batch; the same in all processes.
        """
        rows = NamedSharding(self.mesh, P(AXIS))

        def one(x: Any) -> jax.Array:
            shape = len(indices), *x.shape[1:]
            return jax.make_array_from_callback(
                shape, rows, lambda index: x[indices[index[0]]]
            )

        return jax.tree.map(one, tree)

    def join(self, tree: Any) -> Any:
        """Assembles a batch from the parts of all processes."""
        rows = NamedSharding(self.mesh, P(AXIS))
        return jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(rows, x), tree
        )

    def place(self, tree: Any) -> Any:
        """Places parameters, or a state of them, where a step keeps them."""
        return jax.tree.map(lambda x: _put(x, self._sharding(x)), tree)

    def constrain_params(self, tree: Any) -> Any:
        """Inside a step: keeps the placement of :meth:`place`."""
        return self._constrain(tree, self._sharding)

    def replicate_inside(self, tree: Any) -> Any:
        """Inside a step: replicates a tree on all devices."""
        return self._constrain(tree, lambda _: NamedSharding(self.mesh, P()))

    def shard_rows(self, tree: Any) -> Any:
        """Inside a step: shards the rows of a batch over the devices."""
        return self._constrain(tree, lambda _: NamedSharding(self.mesh, P(AXIS)))

    def _constrain(self, tree: Any, sharding: Any) -> Any:
        if self.mesh.size == 1:
            return tree
        return jax.tree.map(
            lambda x: jax.lax.with_sharding_constraint(x, sharding(x)), tree
        )

    def _sharding(self, x: Any) -> NamedSharding:
        """Shards the longest divisible axis, if requested and worthwhile."""
        size = self.mesh.size
        axes = [i for i, length in enumerate(x.shape) if length and length % size == 0]
        if not self.shard_params or not axes or x.size < LEAST_DIVIDED:
            return NamedSharding(self.mesh, P())
        axis = max(axes, key=lambda i: x.shape[i])
        return NamedSharding(self.mesh, P(*[None] * axis, AXIS))


def make_layout(devices: int | None = None, *, shard_params: bool = False) -> Layout:
    """Makes a layout over the devices of all processes.

    Args:
        devices: Number of devices; None: all.
        shard_params: See :class:`Layout`.

    Raises:
        ValueError: If there are fewer, or another process would have none.
    """
    there = list_devices()
    if devices is not None and not 1 <= devices <= len(there):
        raise ValueError(f"--devices {devices}: choose 1 to {len(there)}, or None.")
    if devices not in (None, len(there)) and jax.process_count() > 1:
        raise ValueError("--devices is for one process; with several, all are used.")
    mesh = Mesh(np.array(there[:devices]), (AXIS,), axis_types=(AxisType.Auto,))
    return Layout(mesh, shard_params)


def list_devices() -> list[jax.Device]:
    """Returns the devices of all processes."""
    return jax.devices()


def start_processes(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects the processes of a training, before anything runs on a device.

    Defaults come from the environment: ``JAX_COORDINATOR_ADDRESS``,
    ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``. If none of the three is set there is a
    single process; the coordinator ``auto`` takes all of them from a cluster that JAX
    knows (Slurm, MPI, Kubernetes, TPU pods).

    Args:
        coordinator: ``HOST:PORT`` of process 0.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.

    Raises:
        ValueError: If only some of them are given.
    """
    values = (coordinator, num_processes, process_id)
    given = {
        name: os.environ.get(variable) if value is None else str(value)
        for (name, variable), value in zip(START.items(), values, strict=True)
    }
    known = {name: value for name, value in given.items() if value is not None}
    if known.get("coordinator") == "auto":
        jax.distributed.initialize()
    elif len(known) == len(given):
        count, number = int(known["num_processes"]), int(known["process_id"])
        jax.distributed.initialize(known["coordinator"], count, number)
    elif known:
        missing = [name for name in given if name not in known]
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        variables = " and ".join(START[name] for name in missing)
        raise ValueError(
            f"Several processes also need {flags} (or {variables} in the environment)."
        )


def is_first() -> bool:
    """Returns whether this process is the one that writes files."""
    return jax.process_index() == 0


def broadcast(flag: bool) -> bool:
    """Returns the flag of process 0, so that all processes act alike."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(flag)))


def wait_for_all(place: str) -> None:
    """Waits until all processes reach this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and is_key(x):
        data = _put(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def is_key(x: jax.Array) -> bool:
    """Returns whether an array holds typed random keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
