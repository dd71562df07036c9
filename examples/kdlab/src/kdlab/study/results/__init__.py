"""What the scores of a study say: tables, figures, the best setting."""
