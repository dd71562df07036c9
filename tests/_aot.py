"""Descriptions of absent machines, as a compiler needs them."""

import functools
import os

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132  fpus_per_core: 128  clock_rate_ghz: 1.98
  threads_per_warp: 32  threads_per_block_limit: 1024  threads_per_core_limit: 2048
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
  shared_memory_per_block: 49152  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000  l2_cache_size: 52428800
  device_memory_size: 84978434048
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 minor: 0 }
"""


def platform(machine: str) -> str:
    return "cuda" if machine.startswith("H100") else "tpu"


@functools.cache
def mesh(machine: str) -> Mesh:
    """Returns all chips of ``v5e:2x4``, ..., ``H100:1x1x8`` along one axis."""
    kind, shape = machine.split(":")
    if platform(machine) == "cuda":
        pytest.importorskip("jax_cuda13_plugin", reason="needs jax-cuda13-plugin")
        options = {"platform": "cuda", "topology": shape, "target_config": _H100}
    else:
        pytest.importorskip("libtpu", reason="needs jax[tpu]")
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        options = {"platform": "tpu", "topology_name": f"{kind}:{shape}"}
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(**options).devices
    return Mesh(np.array(devices), ("data",))


def compile_for(machine: str, fn, *args, **options) -> jax.stages.Compiled:
    """Compiles for shapes whose shardings are on the mesh of the machine."""
    traced = jax.jit(fn, **options).trace(*args)
    return traced.lower(lowering_platforms=(platform(machine),)).compile()
