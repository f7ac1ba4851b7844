#!/bin/sh
# Runs after the installation and each upgrade of the deb or rpm.
set -eu

# The unit needs a key for tickets. Backends sign tickets with the same key.
secret=/etc/sse-gateway/ticket-secret
if [ ! -s $secret ]; then
  (umask 077; od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > $secret.new)
  [ "$(wc -c < $secret.new)" -eq 64 ] || { echo "cannot write $secret" >&2; exit 1; }
  mv $secret.new $secret
fi

if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  # Replaces a running gateway. It drains, which takes longer than a package manager should wait.
  # A failure must not leave the package half configured.
  systemctl --no-block try-restart sse-gateway.service 'sse-gateway@*.service' || :
fi
