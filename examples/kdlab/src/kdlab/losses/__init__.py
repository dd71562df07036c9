"""Distillation losses with the layers that they train."""
