"""``make demo``: the whole life of a store and its standby, on real files. Each step is checked, file by file."""
