#!/bin/sh
# Runs after the installation and each upgrade of the deb or rpm.
set -eu

# The unit needs a key for tickets. Backends sign tickets with the same key.
secret=/etc/sse-gateway/ticket-secret
if [ ! -e $secret ]; then
  (umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > $secret.new)
  mv $secret.new $secret
fi

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # Replaces a running gateway. It drains, which takes longer than a package manager should wait.
  systemctl --no-block try-restart sse-gateway.service
fi
