"""Measurements that anyone can run again, and where what they found is kept."""
