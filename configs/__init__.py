"""Runs, one file each."""
