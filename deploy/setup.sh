#!/bin/sh
# Make a virtual environment with exactly what requirements.lock says, and wio itself in it: setup.sh FOLDER PYTHON
set -eu
venv=$1 python=$2
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
  echo "wio needs Python 3.11 or newer; $python is not. Install it, or say: make PYTHON=/path/to/python3.11" >&2
  exit 1
}
if command -v uv >/dev/null 2>&1; then
  [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
  install() { VIRTUAL_ENV=$PWD/$venv uv pip install --quiet "$@"; }
else
  [ -x "$venv/bin/pip" ] || "$python" -m venv "$venv" || {
    echo "Python cannot make a virtual environment here. On Debian: apt install python3-venv" >&2
    exit 1
  }
  install() { "$venv/bin/pip" install --quiet --disable-pip-version-check "$@"; }
fi
echo "installing what requirements.lock names into $venv …" >&2
install --require-hashes -r requirements.lock
install --no-deps --editable .
