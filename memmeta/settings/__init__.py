"""The settings of a run, one module per section, and how they are read from records."""
