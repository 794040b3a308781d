"""Layouts of image folders that are read without conversion, one module each."""
