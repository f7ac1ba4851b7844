#!/bin/sh
# Creates the root file system of the image: rootfs.sh BINARY ROOT.
# Used by the Dockerfile and by tests/deploy/test_image.py.
set -eu
binary=$1 root=$2

mkdir -p "$root/etc"
install -m 0755 "$binary" "$root/sse-gateway"

# The loader and the libraries that it needs (libc, libgcc_s), at the paths where it looks for them.
libraries=$(ldd "$binary")
if echo "$libraries" | grep 'not found' >&2; then exit 1; fi
for library in $(echo "$libraries" | grep -o '/[^ ]*'); do
  install -D -m 0755 "$library" "$root$library"   # copies the target of a link
done

# Resolve names from /etc/hosts, then by DNS; both modules are part of glibc since 2.34. The
# container platform mounts /etc/hosts and /etc/resolv.conf.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
# Gives the user a name in process lists.
echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > "$root/etc/passwd"
echo 'nonroot:x:65532:' > "$root/etc/group"
# CA certificates for tickets.jwks_url with https. (TLS to Redis uses redis.tls.ca_file, or CA
# certificates compiled into the binary.)
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

# Detect a missing library during the build instead of at the first start.
chroot "$root" /sse-gateway --version
