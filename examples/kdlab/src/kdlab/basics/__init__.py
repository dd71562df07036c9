"""What every room needs: error messages, hints, lines and tables in a terminal."""
