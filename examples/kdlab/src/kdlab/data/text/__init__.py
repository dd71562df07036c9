"""Labelled texts, their tokens, and the metrics of public sets."""
