"""What agents may call (no jax)."""
