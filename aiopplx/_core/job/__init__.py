"""What a user does with one job, one row, or the list of an account's jobs."""
