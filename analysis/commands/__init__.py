"""The commands on results, one per module."""
