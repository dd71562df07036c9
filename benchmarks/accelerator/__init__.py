"""What kdopt costs on one accelerator, and whether it is right there: one command."""
