"""Training jobs: the data model, and what happens to them over time. Pure."""
