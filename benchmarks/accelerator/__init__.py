"""Measures cost and correctness of kdopt on one accelerator, with one command."""
