"""All compiler flags of the tests, set before jax starts, if the jaxlib knows them.

A test runs its small programs once or twice and spends its time in the compiler, so
they are hardly optimised. Tests of the program that users get compile it with
``OPTIMISED``. ``KDOPT_TESTS=optimised`` in the environment does so for every program
(``make test-all``).
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path

DEVICES = 8
"""Fake devices: sharding is tested everywhere."""

CACHE = Path(__file__).parents[1] / ".pytest_cache" / f"xla-{platform.node()}"
"""Compiled programs, shared by all test processes and kept for the next run.

A program is for the processor that compiled it. ``make clean`` removes all.
"""


def _known(options: dict) -> dict:
    """Drops flags that this jaxlib lacks: an unknown flag aborts the process."""
    jaxlib = tuple(int(part) for part in version("jaxlib").split(".")[:3])
    gone = {"xla_cpu_use_fusion_emitters": (0, 11, 1)}
    return {name: x for name, x in options.items() if jaxlib < gone.get(name, (99,))}


FAST = _known(
    {
        "xla_backend_optimization_level": 1,
        "xla_llvm_disable_expensive_passes": True,
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
    }
)
FASTEST = {"xla_backend_optimization_level": 0}
"""Options of ``compile``, for large programs that run once."""
OPTIMISED = _known(
    {
        "xla_backend_optimization_level": 3,
        "xla_llvm_disable_expensive_passes": False,
        "xla_cpu_use_fusion_emitters": True,
    }
)
"""Options of ``compile``, for the program that users get."""


def environment(devices: int = DEVICES) -> dict[str, str]:
    """Returns the environment of a test process; the caller's flags win."""
    optimised = os.environ.get("KDOPT_TESTS") == "optimised"
    flags = {"xla_force_host_platform_device_count": devices}
    flags |= {} if optimised else FAST
    words = [f"--{name}={str(value).lower()}" for name, value in flags.items()]
    given = os.environ.get("KDOPT_XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    return (
        {
            "JAX_COMPILATION_CACHE_DIR": str(CACHE),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "0",
            "JAX_INCLUDE_FULL_TRACEBACKS_IN_LOCATIONS": "false",
            "JAX_PLATFORMS": "cpu",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": str(not optimised).lower(),
        }
        | os.environ
        | {
            "XLA_FLAGS": " ".join([*words, given]),
            "KDOPT_XLA_FLAGS": given,
        }
    )
