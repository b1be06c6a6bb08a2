"""What a session does where several share a store: the rows they hold, one budget, one limit."""
