"""Who we are to the service, in every way it knows: `choice.make` says which one a target has."""
