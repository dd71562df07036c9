"""Helpers that every package uses: error messages, hints, terminal output."""
