"""The record of a sweep and the schedule of its trials."""
