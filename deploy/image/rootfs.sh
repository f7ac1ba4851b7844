#!/bin/sh
# Lays out the root of the image: rootfs.sh BINARY ROOT. Run by the Dockerfile, and by tests/deploy/test_image.py.
set -eu
binary=$1 root=$2

mkdir -p "$root/etc"
install -m 0755 "$binary" "$root/sse-gateway"

# What the loader will look for, under the paths where it looks: libc, libgcc_s and the loader itself.
libraries=$(ldd "$binary")
if echo "$libraries" | grep 'not found' >&2; then exit 1; fi
for library in $(echo "$libraries" | grep -o '/[^ ]*'); do
  install -D -m 0755 "$library" "$root$library"   # follows links: a plain file
done

# Names are resolved by glibc itself (its modules for files and dns are built in since 2.34); this says: both, in this order.
# The platform mounts /etc/hosts and /etc/resolv.conf.
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
# The user's name, for people who look at processes.
echo 'nonroot:x:65532:65532:nonroot:/:/sbin/nologin' > "$root/etc/passwd"
echo 'nonroot:x:65532:' > "$root/etc/group"
# The authorities, for tickets.jwks_url with https. (TLS to Redis trusts those that are compiled in.)
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"

# Fails the build, not the first start.
chroot "$root" /sse-gateway --version
