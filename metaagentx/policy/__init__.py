"""The language model: weights, forward pass, tokens."""
