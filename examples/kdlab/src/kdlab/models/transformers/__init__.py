"""Vision transformers, one family per file, and the layers that they share."""
