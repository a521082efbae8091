"""Filesets and their snapshots: create, list, delete, restore, compare."""
