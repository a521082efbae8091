"""The figures of idemfs, each printed by a function here; ``python -m bench`` runs them."""
