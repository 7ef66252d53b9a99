#!/usr/bin/env bash
# Run other projects' API clients against servers of ours: those of the editor's API with the demo workflow, and those of
# the published workflows' API (segmind, requests, axios, fetch). Needs Python 3.11 or newer, Node 20 and npm, and the
# `clients` extra of pyproject.toml in the Python that is named.
#   tests/e2e/server_clients/run.sh [python] [more options of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
python=${1:-python3}
shift || true
export SIGMAGRAPH_TEST_CLIENTS=${SIGMAGRAPH_TEST_CLIENTS:-$PWD/.ci/clients}
folder=$SIGMAGRAPH_TEST_CLIENTS
if [ ! -d "$folder/venv" ]; then
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install -q comfy-api-simplified==1.6.0 comfy-cli==1.23.0 "comfy-script[default]==0.6.1" comfy-sdk==0.5.0 \
    comfyui-utils==0.0.1 comfy-commander==0.1.2 comfy-ui-client==0.0.1.10 sd-backend-client==0.5.0
fi
if [ ! -d "$folder/npm/node_modules" ]; then
  mkdir -p "$folder/npm"
  (cd "$folder/npm" && npm init -y >/dev/null &&
    npm install --no-audit --no-fund @saintno/comfyui-sdk@0.3.1 @stable-canvas/comfyui-client@1.5.9 ws@8 @comfyorg/sdk@0.1.9 comfy-ui-client@0.1.2)
fi
"$python" -c "import segmind, requests" || { echo "$python lacks the extra: pip install -e '.[test,clients]'" >&2; exit 1; }
exec "$python" -m pytest tests/e2e/test_server_clients.py tests/server/endpoints -m clients "$@"
