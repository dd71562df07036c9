"""Knowledge distillation with several losses, from models to figures."""
