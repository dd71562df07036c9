"""What runs did, to look at: measurements at their end, figures, a page."""
