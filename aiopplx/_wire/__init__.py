"""The wire: HTTP exchanges, requests and answers as plain values.

Nothing here performs I/O, reads a clock, or knows any one API.
"""
