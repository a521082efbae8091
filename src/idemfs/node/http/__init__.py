"""The network side of a node: HTTPS API, health checks, metrics, and the channels on which nodes speak."""
