"""The command ``backfill``: job history as OpenMetrics with timestamps, for times before us."""
