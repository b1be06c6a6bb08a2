"""Decisions. `now` and `random` go in; a moment, a delay or a verdict comes out.

Nothing in this package sleeps, sends, reads a clock or draws a number by itself, so all of it is tested by tables, by
properties and in virtual time.
"""
