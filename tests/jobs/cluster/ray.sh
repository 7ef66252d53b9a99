#!/usr/bin/env bash
# Run the tests of workers on Ray: several nodes on this machine, reached through Ray's client server. Needs the extra
# `cluster` (pip install -e '.[cluster]') and about 4 GiB of memory; less than 15 minutes. As root it also tries a network
# with delay and loss, and with Debian's `postgresql` and the extra `postgres` two servers on one cluster. Runs
# `.venv/bin/python` where it is, or $PYTHON. Arguments go to pytest; SIGMAGRAPH_CLUSTER_JOBS is the size of the
# campaign, 200 as a rule.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
export RAY_gcs_server_port_wait_time_s=120  # a head has 30 s as a rule, which a busy machine may need for less
export RAY_gcs_rpc_server_reconnect_timeout_s=600  # Ray ends a process that misses a head for a minute: pytest, say
export RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python="${PYTHON:-$( [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
if ls -d /usr/lib/postgresql/*/bin >/dev/null 2>&1; then
  exec tests/jobs/with_postgres.sh "$python" -m pytest -q -m cluster tests/jobs/cluster "$@"
fi
echo "PostgreSQL is not installed: two servers on one cluster are not tried"
exec "$python" -m pytest -q -m "cluster and not postgres" tests/jobs/cluster "$@"
