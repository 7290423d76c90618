# First process of a machine: its network, its part of the cgroup hierarchies. Argument: the machine's name.
set -eu
name=$1
ip link set lo up
ip link add node0 type veth peer name wire0
ip address add 192.168.77.1/24 dev node0
ip address add fd77::1/64 dev node0 nodad
ip link set node0 up
ip link set wire0 up
ip route add default via 192.168.77.254
hostname "$name"
# What servers keep below /run goes with the machine.
mount -t tmpfs none /run
# Read before it changes.
mounts=$(cat /proc/self/mounts)
echo "$mounts" | while read -r _ path type _; do
  case $type in cgroup | cgroup2) mount --bind "$path/$name" "$path" ;; esac
  # Version 2 lets only leaves hold processes.
  if [ "$type" = cgroup2 ]; then
    mkdir -p "$path/init"
    # The first process, and the one that runs this loop.
    for pid in 1 0; do echo $pid >"$path/init/cgroup.procs"; done
    # Until who waits for the machine has left, too.
    tries=0
    while [ -n "$(cat "$path/cgroup.procs")" ] && [ $tries -lt 6000 ]; do
      sleep 0.01
      tries=$((tries + 1))
    done
    left=$(cat "$path/cgroup.procs")
    if [ -n "$left" ]; then
      echo "$path: still here after a minute, and the group cannot have groups of its own (0 is a process outside of the machine):" $left >&2
      exit 1
    fi
  fi
done
echo ready
sleep infinity &
wait
