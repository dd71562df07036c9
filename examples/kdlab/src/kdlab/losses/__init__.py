"""Distillation losses together with their trainable layers."""
