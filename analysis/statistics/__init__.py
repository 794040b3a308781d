"""Statistics over the trials of a sweep; nothing here draws or prints."""
