#!/usr/bin/env bash
# On a worker of a TPU: installs this checkout for the Python named first, then runs that with the other arguments.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$1
shift

if ! { command -v "$python" && command -v make; } >/dev/null; then
  sudo apt-get update -q
  sudo apt-get install -y -q make "$python" "$python-venv"
fi
make setup PYTHON="$python" ACCELERATOR=tpu
exec ".venv/${python#python}/bin/python" "$@"
