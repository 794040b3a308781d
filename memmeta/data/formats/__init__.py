"""Safe readers of the files that data sets come in."""
