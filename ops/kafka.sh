#!/bin/bash
# A node of the broker: its storage is formatted at the first start, with the administrator that it must know by then.
set -eu
settings=/secrets/$NODE.properties
if [ ! -e /var/lib/kafka/data/log/meta.properties ]; then
  # What it prints when all is well holds what passwords are checked by.
  /opt/kafka/bin/kafka-storage.sh format --cluster-id "$(cat /secrets/cluster-id)" --config "$settings" \
    @/secrets/format.arguments > /tmp/format.log 2>&1 || { cat /tmp/format.log; exit 1; }
  rm /tmp/format.log
fi
exec /opt/kafka/bin/kafka-server-start.sh "$settings"
