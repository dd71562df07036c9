"""Reports on finished runs: figures and an HTML page."""
