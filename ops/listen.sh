#!/bin/bash
# An agency's console: `listen` shows what its topic holds and then what comes, until it is interrupted.
set -eu
settings=/tmp/agency.properties
if [ ! -e "$settings" ]; then
  . "/credentials/kafka-agency-$AGENCY"
  umask 077
  cat > "$settings" <<END
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="$username" password="$password";
ssl.truststore.type=PEM
ssl.truststore.location=/credentials/ca.pem
END
fi
[ "${1:-}" != wait ] || exec sleep infinity
exec /opt/kafka/bin/kafka-console-consumer.sh --bootstrap-server "$KAFKA_BOOTSTRAP" --command-config "$settings" \
  --topic "training.agency.$AGENCY" --group "agency.$AGENCY.console" --from-beginning \
  --formatter-property print.headers=true "$@"
