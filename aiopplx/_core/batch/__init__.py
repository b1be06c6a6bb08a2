"""What a batch is made of: its source, its results, how its jobs stand, and what is said of it before it runs."""
