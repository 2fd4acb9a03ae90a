"""Forms: how state, network output and score hang together, for each kind of process."""
