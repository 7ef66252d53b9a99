#!/usr/bin/env bash
# Drive both generations of the editor, and our own pages, in Debian's Chromium. Needs: apt-get install chromium; npm, for
# axe-core; a Python with the project.
#   tests/browser/run.sh [python] [more options of pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${1:-python3}
shift || true
command -v chromium >/dev/null || { echo "apt-get update && apt-get install chromium" >&2; exit 1; }
"$python" -m pip install -q playwright
export SIGMAGRAPH_TEST_FRONTENDS=${SIGMAGRAPH_TEST_FRONTENDS:-.ci/frontends}
for version in 1.58.1 1.27.10; do
  folder=$SIGMAGRAPH_TEST_FRONTENDS/$version
  [ -d "$folder" ] && continue
  "$python" -m pip download -q --no-deps -d "$folder.wheel" "comfyui-frontend-package==$version"
  "$python" -m zipfile -e "$folder.wheel"/*.whl "$folder"
done
export SIGMAGRAPH_TEST_AXE=${SIGMAGRAPH_TEST_AXE:-.ci/axe/node_modules/axe-core/axe.min.js}
[ -f "$SIGMAGRAPH_TEST_AXE" ] || npm install --silent --no-audit --no-fund --prefix .ci/axe axe-core@4
exec "$python" -m pytest tests/browser -m browser "$@"
