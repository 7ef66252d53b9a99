#!/usr/bin/env bash
# Build a wheel of the last commit, install it into a fresh environment, and make a picture and serve one from another
# folder: nothing of the checkout may be needed. Downloads the dependencies.   tests/e2e/wheel.sh [python]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${1:-python3}
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
mkdir -p "$folder/source" "$folder/elsewhere/models"
git archive HEAD | tar -x -C "$folder/source"
"$python" -m pip wheel -q --no-deps -w "$folder/dist" "$folder/source"
rm -rf "$folder/source"
"$python" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "$folder"/dist/*.whl
python=$folder/venv/bin/python  # the one given may be named relative to the checkout
cd "$folder/elsewhere"
workflow=$folder/venv/share/sigmagraph/workflows/txt2img.json
"$folder/venv/bin/sigmagraph" run "$workflow" --set KSampler.steps=4
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$folder/venv/bin/sigmagraph" serve --port "$port" --demo 2>server.log &
server=$!
url=http://127.0.0.1:$port
for _ in $(seq 300); do curl -sf "$url/ready" && break; sleep 0.2; done
curl -sf "$url/login" | grep -q "API key"
curl -sf "$url/templates/index.json" | grep -q txt2img
id=$(curl -sf "$url/prompt" -d "{\"prompt\": $(cat "$workflow")}" | sed 's/.*"prompt_id":"\([^"]*\)".*/\1/')
for _ in $(seq 300); do curl -sf "$url/jobs/$id" | grep -q '"status":"completed"' && break; sleep 0.2; done
curl -sf "$url/jobs/$id" | grep -o '"status":"completed"'
ls output
