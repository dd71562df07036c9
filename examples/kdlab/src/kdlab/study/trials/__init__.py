"""Which settings to try, in which order, and where their scores are kept."""
