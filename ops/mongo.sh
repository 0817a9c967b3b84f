#!/bin/bash
# A member of the replica set. It takes its key only from a file that nobody else may read.
set -eu
install -m 400 /secrets/keyfile /tmp/keyfile
exec docker-entrypoint.sh mongod --replSet rs0 --keyFile /tmp/keyfile --bind_ip_all \
  --setParameter transactionLifetimeLimitSeconds=20 "$@"
