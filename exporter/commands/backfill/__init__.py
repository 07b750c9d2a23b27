"""The command ``backfill``: the job history as OpenMetrics with timestamps."""
