"""Submit many Perplexity deep-research jobs at once, poll them together, get each as it finishes."""
