"""The journal on PostgreSQL, for many processes and machines, and what they share of an account."""
