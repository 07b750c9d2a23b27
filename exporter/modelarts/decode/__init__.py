"""The API's JSON → flat, frozen `Job`s. Pure."""
