"""Distillation of detectors: losses, evaluation, and an experiment on real digits."""
