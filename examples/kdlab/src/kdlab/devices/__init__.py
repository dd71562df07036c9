"""Devices: the mesh, checkpoints, interrupts."""
