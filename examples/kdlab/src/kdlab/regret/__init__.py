"""What a method costs a user who does not know the right weight, over situations."""
