"""Bytes ↔ records and keys. Pure: no clock, randomness, file or socket in any module here."""
