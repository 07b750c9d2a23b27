"""A simulated ModelArts service: a living world of training jobs behind real HTTP.

Written from the vendor's documents alone. It imports nothing of the exporter, so that a
misreading on one side shows as a failing test instead of passing on both.
"""
