"""Every option of the exporter, from flags, environment variables and a file."""
