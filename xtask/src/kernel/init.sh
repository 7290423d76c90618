#!/bin/busybox sh
# The first program of the emulated machine: shows the files of this one, with all changes in memory, and runs what there is to run.
b=/bin/busybox
$b mount -t proc p /proc
$b mount -t sysfs s /sys
$b mount -t devtmpfs d /dev
for module in @MODULES@; do $b modprobe $module; done
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro,msize=524288 root /ro || $b poweroff -f
$b mount -t tmpfs -o size=3g t /rw
$b mkdir -p /rw/upper /rw/work /rw/root
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work o /rw/root
r=/rw/root
for tree in proc sys dev; do $b mount --move /$tree $r/$tree; done
for tree in tmp run var/lib/knarr; do $b mkdir -p $r/$tree; $b mount -t tmpfs t $r/$tree; done
$b mkdir -p $r/dev/pts $r/dev/shm $r/lib/modules
$b mount -t devpts p $r/dev/pts
$b mount -t tmpfs s $r/dev/shm
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro modules $r/lib/modules
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,ro job $r/mnt
$b mount -t securityfs s $r/sys/kernel/security
$b mount -t cgroup2 c $r/sys/fs/cgroup
$b mount -t bpf b $r/sys/fs/bpf
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec $b switch_root $r /bin/sh -c 'hostname emulated; ip link set lo up; sh /mnt/run; echo "@ENDED@$?"; /bin/busybox poweroff -f'
