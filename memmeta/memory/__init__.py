"""The memory of a run: prediction, reservations and limits, and a table for the paper's figure."""
