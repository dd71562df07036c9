"""Benchmarks: times as ratios to a bound that is measured in the same run."""
