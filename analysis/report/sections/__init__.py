"""The sections of a report, a file each: what is computed elsewhere, in words and figures."""
