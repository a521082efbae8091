"""The process that owns stores: what lets others use them meanwhile."""
