"""The web configuration of exporter-toolkit: TLS, passwords, headers, rate limit."""
