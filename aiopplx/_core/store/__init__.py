"""How a session opens its store and reaches it: with a time limit, through a fail-over, and whoever wrote it."""
