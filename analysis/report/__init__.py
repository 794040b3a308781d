"""The report of a sweep: one HTML page with figures, and their data as CSV."""
