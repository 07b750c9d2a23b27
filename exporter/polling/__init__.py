"""When a target is read, and what is known of it."""
