"""The sweeps of a storage folder: listing and removing them."""
