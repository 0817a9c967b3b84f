#!/bin/sh
# Saves a running installation into a new folder: ops/backup.sh FOLDER
# secrets.tar holds every secret of the installation: keep it as you keep those.
set -eu
[ $# -eq 1 ] || { echo "usage: ops/backup.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
[ -z "$(ls -A "$1")" ] || { echo "$1 is not empty" >&2; exit 1; }
umask 077
docker compose run --rm -T --no-deps --entrypoint tar init -C / -cf - secrets/kept credentials clock > "$1/secrets.tar.part"
docker compose run --rm -T --no-deps --entrypoint sh ops -c \
  'rm -rf /backup/now && python -m shared.ops backup /backup/now >&2 && tar -C /backup/now -cf - . && rm -rf /backup/now' \
  > "$1/data.tar.part"
mv "$1/secrets.tar.part" "$1/secrets.tar"
mv "$1/data.tar.part" "$1/data.tar"
echo "saved in $1: data.tar, secrets.tar"
