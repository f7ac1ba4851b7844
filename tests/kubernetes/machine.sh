#!/usr/bin/env bash
# The first process of a node: machine.sh NODE DIRECTORY
#
# `unshare` gives it mount, network, pid, uts and ipc namespaces. It prepares them, waits for the
# network, and then keeps the programs in DIRECTORY/services running; each is a script. Killing this
# process ends everything on the node, containers too.
set -euo pipefail
node=$1 directory=$2
hostname "$node"
mount --make-rshared /
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# kube-proxy also handles what one pod sends to another on the same bridge.
bridge=/proc/sys/net/bridge/bridge-nf-call-iptables
[[ ! -e $bridge ]] || echo 1 >$bridge

# kubelet sets these for the whole machine. It finds the values that it wants in copies.
mkdir -p "$directory/sysctl"
while IFS='=' read -r key value; do
  [[ -e /proc/sys/$key ]] || continue
  copy=$directory/sysctl/${key//\//_}
  echo "$value" >"$copy"
  mount --bind "$copy" "/proc/sys/$key"
done <<'END'
vm/overcommit_memory=1
vm/panic_on_oom=0
kernel/panic=10
kernel/panic_on_oops=1
kernel/keys/root_maxkeys=1000000
kernel/keys/root_maxbytes=25000000
END

# A cgroup of its own: in every hierarchy of version 1, or in the one of version 2. The steps for
# version 2 follow kind and k3s; they were written on a machine with version 1.
group=$(cat "$directory/cgroup")
if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
  enable_controllers() {
    sed 's/ / +/g; s/^/+/' /sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
  }
  # In a container this fails until the group contains no process but only other groups.
  if ! enable_controllers 2>/dev/null; then
    mkdir -p /sys/fs/cgroup/init
    while read -r process; do
      echo "$process" >/sys/fs/cgroup/init/cgroup.procs || true
    done </sys/fs/cgroup/cgroup.procs 2>/dev/null
    enable_controllers
  fi
  mkdir -p "/sys/fs/cgroup/$group"
else
  for hierarchy in /sys/fs/cgroup/*/; do
    [[ $hierarchy != */unified/ ]] || continue
    own=$hierarchy$group
    mkdir -p "$own"
    if [[ $hierarchy == */cpuset/ ]]; then
      cat "${hierarchy}cpuset.cpus" >"$own/cpuset.cpus"
      cat "${hierarchy}cpuset.mems" >"$own/cpuset.mems"
      echo 1 >"$own/cgroup.clone_children"
    fi
  done
fi

# Directories that the programs write to.
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/netns
for path in var/log var/lib/kubelet var/lib/cni; do
  mkdir -p "$directory/$path" "/$path"
  mount --bind "$directory/$path" "/$path"
done
mkdir -p /var/log/pods /var/log/containers

touch "$directory/prepared"
while [[ ! -e $directory/connected ]]; do sleep 0.05; done

for service in "$directory"/services/*; do
  (
    exec >>"$directory/$(basename "$service").log" 2>&1
    while true; do
      status=0
      "$service" || status=$?
      echo "== ended with status $status"
      sleep 0.5
    done
  ) &
done
wait
