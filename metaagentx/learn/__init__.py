"""Trajectories become advantages, packed batches and new weights."""
