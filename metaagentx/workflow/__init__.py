"""The language of designs, and how a design runs (standard library only)."""
