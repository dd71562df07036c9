"""The settings of an experiment, each explained and checked."""
