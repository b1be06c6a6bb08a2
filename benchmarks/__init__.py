"""Measurements of this library against other clients and against what is possible: one file for each question."""
