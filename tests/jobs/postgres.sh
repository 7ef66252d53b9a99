#!/usr/bin/env bash
# Run the store's tests on a PostgreSQL of their own; needs Debian's `postgresql` (apt-get install postgresql) and the
# extra `postgres` (pip install -e '.[test,postgres]'). Runs `.venv/bin/python` where it is, or $PYTHON. Arguments go to
# pytest. Two servers on a cluster are tests/jobs/cluster/ray.sh's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${PYTHON:-$( [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
exec tests/jobs/with_postgres.sh "$python" -m pytest -q -m "postgres and not cluster" tests/jobs "$@"
