#!/usr/bin/env bash
# Images in OCI archives, without a container engine. Needs buildah and root.
#
#   deploy/image/oci.sh build BINARY ARCHITECTURE ARCHIVE [LABEL=VALUE ..]
#     builds the last stage of the Dockerfile with this binary
#   deploy/image/oci.sh merge DESTINATION ARCHIVE ..
#     makes one image for several architectures and pushes it, for example to
#     docker://registry.example.com/sse-gateway:TAG or to oci-archive:FILE; prints its digest
set -euo pipefail
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# A store of its own, which needs no support of the file system.
store() {
  BUILDAH_ISOLATION=chroot buildah \
    --storage-driver vfs --root "$work/root" --runroot "$work/run" "$@"
}

build() {
  local binary=$1 architecture=$2 archive=$3
  shift 3
  sh deploy/image/rootfs.sh "$binary" "$work/context/rootfs" >/dev/null
  sed -n '/^FROM scratch/,$p' Dockerfile | sed 's|--from=build /rootfs /|rootfs /|' \
    > "$work/context/Dockerfile"
  store build --quiet --platform "linux/$architecture" --timestamp "${SOURCE_DATE_EPOCH:-0}" \
    "${@/#/--label=}" --tag sse-gateway "$work/context" >/dev/null
  rm -f "$archive"
  store push --quiet sse-gateway "oci-archive:$archive:sse-gateway" >/dev/null
}

merge() {
  local destination=$1 archive
  shift
  store manifest create merged >/dev/null
  for archive in "$@"; do
    store manifest add merged "$(store pull --quiet "oci-archive:$archive")" >/dev/null
  done
  store manifest push --all --quiet --digestfile "$work/digest" merged "$destination" >&2
  cat "$work/digest"
}

command=$1
shift
case "$command" in
  build | merge) "$command" "$@" ;;
  *) echo "oci.sh: must be build or merge (got \"$command\")" >&2; exit 2 ;;
esac
