"""What the service sends, as the exporter knows it: JSON in (`decode`), flat jobs out (`job`)."""
