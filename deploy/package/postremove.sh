#!/bin/sh
# Runs after the removal of the deb or rpm, after each upgrade, and when the deb is purged.
set -eu

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
# Only Debian's packages can be purged. rpm keeps what the administrator wrote.
if [ "${1:-}" = purge ]; then
  rm -rf /etc/sse-gateway
fi
