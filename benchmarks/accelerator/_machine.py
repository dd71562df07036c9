"""Describes the machine of the measurements."""

import os
import re
import subprocess
from importlib import metadata

import jax


def machine() -> dict[str, object]:
    """Returns the card, its driver and the versions of the software."""
    device = jax.devices()[0]
    return {
        "card": device.device_kind,
        "platform": device.platform,
        "driver": _driver(),
        "cpus": os.cpu_count(),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "versions": {
            name: _version(name) for name in ("jax", "jaxlib", "optax", "flax")
        },
    }


def slug() -> str:
    """Returns the name of the card as part of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", jax.devices()[0].device_kind.lower()).strip("-")


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
