"""The papers: their recipes, their claims, their figures."""
