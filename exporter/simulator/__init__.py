"""A simulated ModelArts service: a living world of training jobs behind real HTTP.

Written from the vendor's documentation alone. It imports nothing from the exporter, so that a
misunderstanding on one side fails a test instead of passing on both.
"""
