"""The loopback endpoint: keys for people on this machine, also while the hub is away."""
