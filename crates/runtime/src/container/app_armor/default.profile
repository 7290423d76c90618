@ABI@
# The profile of containers that ask for no other one. It denies what leads out of a container although capabilities may allow it:
# mounts, and changes of the kernel's own files below /proc and /sys.
profile @NAME@ flags=(attach_disconnected,mediate_deleted) {
  capability,
  file,
  network,
  umount,
  unix,

  # Who sends signals or traces from outside is judged by their own profile.
  signal (receive),
  signal (send) peer=@NAME@,
  signal (send) set=(exists),
  ptrace (readby,tracedby),
  ptrace (read,trace) peer=@NAME@,

  deny mount,
  deny pivot_root,
  deny remount,

  # Of /proc, processes write their own files, and kernel.shm*, which is of their namespace.
  deny /proc/* w,
  deny /proc/[^0-9s]*/** w,
  deny /proc/s[^y]*/** w,
  deny /proc/sys[^/]*/** w,
  deny /proc/sys/[^k]*/** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/kcore rwklx,
  deny /proc/sysrq-trigger rwklx,

  # Of /sys, nothing is written but control groups.
  deny /sys/* wklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
