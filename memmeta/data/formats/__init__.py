"""Safe readers for the file formats of published data sets."""
