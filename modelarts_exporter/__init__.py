"""The name of the distribution, for `python -m modelarts_exporter`. The code is in `exporter`."""
