"""Knowledge distillation with balanced losses, from data to plots."""
