"""Seeded fuzzing of every reader: ``python -m tests.fuzz --seconds 20``."""
