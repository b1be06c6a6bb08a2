"""Getting requests out and answers back: the retry loop, aiohttp, the clock, and who shares a gate.

Nothing here knows batches, journals or polling rules.
"""
