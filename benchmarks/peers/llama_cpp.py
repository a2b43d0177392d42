"""llama.cpp, as the npm package node-llama-cpp carries it, with the Q4_1 weights of SmolLM2-135M-Instruct as they are.

npm install --prefix benchmarks/peers
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaagentx.policy.hub import find_smollm2

SCRIPT = Path(__file__).with_name("llama_cpp.mjs")


class LlamaCpp:
    """Batches of replies of a given length, decoded side by side. Nothing ends a reply earlier.

    Args:
      capacity: tokens of cache of each prompt and reply.
      threads: of its matrix products.

    Raises:
      ModuleNotFoundError: node or node-llama-cpp is not installed.
    """

    def __init__(self, capacity: int, threads: int) -> None:
        node = shutil.which("node")
        if node is None or not (SCRIPT.parent / "node_modules" / "node-llama-cpp").is_dir():
            raise ModuleNotFoundError("No module named 'node-llama-cpp' (npm install --prefix benchmarks/peers)")
        self.command = [node, str(SCRIPT), str(find_smollm2()), str(threads), str(capacity)]
        self.process: subprocess.Popen[str] | None = None
        self.slots = 0

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """`tokens` new tokens for each prompt; another number of prompts than before starts it anew."""
        if self.process is None or self.slots != len(prompts):
            self._start(len(prompts))
        replies: list[list[int]] = self._ask({"prompts": [list(prompt) for prompt in prompts], "tokens": tokens})
        assert {len(reply) for reply in replies} == {tokens}
        return replies

    def _start(self, slots: int) -> None:
        if self.process is not None:
            self.process.communicate()
        command = [*self.command, str(slots)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.slots = slots
        self._read()

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> Any:
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"llama.cpp ended with {self.process.wait()}")
        return json.loads(line)
