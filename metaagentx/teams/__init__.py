"""Teams whose agents have weights of their own, on servers of their own (M-GRPO, arXiv 2511.13288)."""
