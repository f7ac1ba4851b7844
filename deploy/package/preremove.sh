#!/bin/sh
# Runs before the removal of the deb (remove) or rpm (0), and before each upgrade (other values).
set -eu

case "${1:-}" in
  remove | 0)
    if [ -d /run/systemd/system ]; then
      systemctl --no-reload disable --now sse-gateway.service
    fi
    ;;
esac
