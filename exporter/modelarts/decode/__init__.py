"""Decode the JSON of the API to flat, frozen `Job`s. Pure."""
