"""Which distillation settings matter on a task, and what a bad choice of them costs."""
