"""The language model: weights, forward pass, tokens."""

import os

# Transformers serves tokenizers here: its advice to install PyTorch is not for us.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
