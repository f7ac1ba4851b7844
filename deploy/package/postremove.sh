#!/bin/sh
# Runs after the removal of the deb or rpm, after each upgrade, and when the deb is purged.
set -eu

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
fi
# Only Debian's packages can be purged. rpm keeps what the administrator wrote.
if [ "${1:-}" = purge ]; then
  cd /etc/sse-gateway 2>/dev/null || exit 0
  rm -f gateway.toml ticket-secret environment
  # Other files belong to the administrator.
  rmdir --ignore-fail-on-non-empty /etc/sse-gateway
fi
