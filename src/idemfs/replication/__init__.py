"""Change sets: the difference between two snapshots, its bytes on the wire, and its way into a standby."""
