# Makes one more host of a machine: a network namespace on the same wire. Argument: its number, the last part of its address.
set -eu
n=$1
if [ ! -e /run/netns/wire ]; then
  ip netns add wire
  ip link set wire0 netns wire
  ip -n wire link add switch type bridge
  ip -n wire link set switch up
  ip -n wire link set wire0 master switch
  ip -n wire link set wire0 up
fi
ip netns add "host$n"
ip -n "host$n" link add node0 type veth peer name "wire$n" netns wire
ip -n "host$n" link set lo up
ip -n "host$n" address add "192.168.77.$n/24" dev node0
ip -n "host$n" address add "fd77::$n/64" dev node0 nodad
ip -n "host$n" link set node0 up
ip -n "host$n" route add default via 192.168.77.254
ip -n wire link set "wire$n" master switch
ip -n wire link set "wire$n" up
