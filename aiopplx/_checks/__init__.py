"""Whatever a caller gives, before anything is sent or opened: made built-in, converted, and checked or refused.

Nothing here performs I/O, or knows requests, sessions or any API.
"""
