"""Knowledge distillation with several losses, from data to figures."""
