#!/bin/sh
# Puts what ops/backup.sh saved into an installation that was never started: ops/restore.sh FOLDER
# E-mail is held back afterwards: docker compose run --rm ops mail release
set -eu
[ $# -eq 1 ] && [ -f "$1/data.tar" ] && [ -f "$1/secrets.tar" ] || {
  echo "usage: ops/restore.sh FOLDER (with data.tar and secrets.tar)" >&2; exit 2; }
[ -z "$(docker compose ps -aq)" ] || { echo "this installation was started before: docker compose down -v" >&2; exit 1; }
services="enrollment scheduling assessment notification"

docker compose run --rm -T --no-deps --entrypoint tar init -C / -xf - < "$1/secrets.tar"
prepared=$(for service in $services; do echo "$service-prepare"; done)
docker compose up -d --wait init kafka mongo database $prepared
# Topics, users and rights of the agencies, whose passwords came back with the credentials.
codes=$(docker compose run --rm -T --no-deps --entrypoint sh init -c \
  'for file in /credentials/kafka-agency-*; do [ -e "$file" ] && echo "--agency ${file#/credentials/kafka-agency-}"; done; :')
[ -z "$codes" ] || docker compose run --rm -T --no-deps notification-prepare services.notification.app prepare $codes
docker compose run --rm -T --no-deps --entrypoint sh ops -c \
  'rm -rf /backup/now && mkdir /backup/now && tar -C /backup/now -xf - && python -m shared.ops restore /backup/now --yes && rm -rf /backup/now' \
  < "$1/data.tar"
docker compose up -d --wait
