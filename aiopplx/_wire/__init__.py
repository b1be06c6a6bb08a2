"""What goes over the wire, as plain values: HTTP exchanges, requests, and everything that the APIs have in common.

Nothing here performs I/O, reads a clock, or knows any one API.
"""
