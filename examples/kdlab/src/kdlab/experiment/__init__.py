"""Experiments: a teacher, its students, and their results."""
