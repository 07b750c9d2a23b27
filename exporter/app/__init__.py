"""The composition root: settings in, a running exporter out."""
