#!/usr/bin/env bash
# Run a command with a PostgreSQL of its own, in a temporary folder: `with_postgres.sh COMMAND...`. Needs Debian's
# `postgresql` (apt-get install postgresql) and the extra `postgres`. SIGMAGRAPH_TEST_POSTGRES is its URL.
set -euo pipefail
programs=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
folder=$(mktemp -d)
as_user() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }  # it refuses to run as root
[ "$(id -u)" != 0 ] || chown postgres "$folder"
trap 'as_user "$programs/pg_ctl" -D "$folder/data" -m immediate stop >"$folder/stop.log" 2>&1 || true; rm -rf "$folder"' EXIT
as_user "$programs/initdb" -D "$folder/data" -U tests -A trust >"$folder/init.log"
as_user "$programs/pg_ctl" -D "$folder/data" -w -l "$folder/data/log" \
  -o "-c listen_addresses='' -c unix_socket_directories='$folder' -c fsync=off" start >"$folder/start.log"
export SIGMAGRAPH_TEST_POSTGRES="postgresql+psycopg://tests@/postgres?host=$folder"
"$@"
