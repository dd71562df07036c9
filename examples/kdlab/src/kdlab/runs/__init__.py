"""Run directories: what is written to them, and how it is read back."""
