"""Training: methods, the losses of a step, the loop over steps."""
