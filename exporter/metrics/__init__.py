"""What a target looks like as metrics: one declarative row per family, values in base units."""
