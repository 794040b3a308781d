"""The version of memmeta that is installed."""

from importlib.metadata import version

__version__ = version("memmeta")
