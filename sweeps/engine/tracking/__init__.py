"""Copies the ledger to MLflow."""
