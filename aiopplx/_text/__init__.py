"""What is read out of a text: citation marks, JSON, a model's thoughts, and a server's words made safe to print.

Nothing here performs I/O, or knows jobs, any API, or HTTP.
"""
