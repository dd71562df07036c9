"""Training: methods, losses of a step, the loop over steps."""
