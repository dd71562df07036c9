"""Losses of detectors: boxes, matching, the criterion and distances of tokens."""
