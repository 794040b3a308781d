"""The process and its machine: files, signals, threads, terminals."""
