"""The record of a sweep, and which trial comes next."""
