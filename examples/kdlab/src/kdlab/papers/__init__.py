"""The papers: their recipes, claims and figures."""
