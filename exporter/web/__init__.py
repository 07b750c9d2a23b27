"""The exporter's own HTTP server."""
