"""Minima of the training losses: flatness, landscapes, restored students."""
