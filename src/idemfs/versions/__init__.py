"""The ditto rule: preserve and resolve. Nothing here opens, reads or writes anything by itself."""
