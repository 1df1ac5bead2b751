#!/bin/bash
# Runs PostgreSQL in the foreground. At the first start it makes the cluster and in it the database `llm`, the server
# `vllm` and the role `analyst`, who may use both and nothing more. The superuser has no password and comes from
# inside the container only.
set -euo pipefail

first_start() {
    local new="$PGDATA.new"
    rm -rf "$new" # what an earlier start left half made
    initdb --pgdata="$new" --username=postgres --encoding=UTF8 --auth-local=peer --auth-host=reject >/dev/null
    printf '%s\n' 'local all postgres peer' 'host llm analyst all scram-sha-256' >"$new/pg_hba.conf"
    pg_ctl --pgdata="$new" --wait --silent --log="$new/first_start.log" \
        --options="-c listen_addresses='' -c unix_socket_directories='$new'" start
    PGHOST="$new" psql --quiet --no-psqlrc --set=ON_ERROR_STOP=1 --dbname=postgres --file=/src/docker/database.sql
    pg_ctl --pgdata="$new" --wait --silent stop
    mv "$new" "$PGDATA" # whole or not at all
}

[ -s "$PGDATA/PG_VERSION" ] || first_start
unset ANALYST_PASSWORD
exec postgres -c listen_addresses='*'
