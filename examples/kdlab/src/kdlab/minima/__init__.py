"""Minima of the training losses: sharpness, landscapes, restored students."""
