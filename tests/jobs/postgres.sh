#!/usr/bin/env bash
# Run the store's tests on a PostgreSQL of their own, in a temporary folder; needs Debian's `postgresql`
# (apt-get install postgresql) and the extra `postgres` (pip install -e '.[test,postgres]'). Runs `.venv/bin/python`
# where it is, or $PYTHON. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
programs=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
folder=$(mktemp -d)
as_user() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }  # it refuses to run as root
[ "$(id -u)" != 0 ] || chown postgres "$folder"
trap 'as_user "$programs/pg_ctl" -D "$folder/data" -m immediate stop >"$folder/stop.log" 2>&1 || true; rm -rf "$folder"' EXIT
as_user "$programs/initdb" -D "$folder/data" -U tests -A trust >"$folder/init.log"
as_user "$programs/pg_ctl" -D "$folder/data" -w -l "$folder/data/log" \
  -o "-c listen_addresses='' -c unix_socket_directories='$folder' -c fsync=off" start >"$folder/start.log"
export SIGMAGRAPH_TEST_POSTGRES="postgresql+psycopg://tests@/postgres?host=$folder"
"${PYTHON:-$( [ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}" -m pytest -q -m postgres tests/jobs "$@"
