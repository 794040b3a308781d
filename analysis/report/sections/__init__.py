"""The sections of a report, one module each. They present what `analysis.statistics` computes."""
