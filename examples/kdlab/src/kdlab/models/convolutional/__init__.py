"""Convolutional networks, one family per file, and an MLP for digits."""
