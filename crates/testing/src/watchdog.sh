# Holds one machine and removes it: when its standard input ends, whatever happened to the test, nothing is left.
# Arguments: directory of the machine (removed at the end), its name.
set -u
dir=$1 name=$2
groups=$(while read -r _ path type _; do case $type in cgroup | cgroup2) echo "$path" ;; esac done </proc/self/mounts)
for group in $groups; do
  mkdir "$group/$name" || exit 1
  for file in cpuset.cpus cpuset.mems; do
    [ -e "$group/$name/$file" ] && cat "$group/$file" >"$group/$name/$file"
  done
  [ -e "$group/cgroup.controllers" ] && for controller in $(cat "$group/cgroup.controllers"); do
    echo "+$controller" >"$group/cgroup.subtree_control"
  done
done
# It has no child before the machine's first process, by which is known below that it has its namespaces.
(
  for group in $groups; do echo 0 >"$group/$name/cgroup.procs"; done
  exec setpriv --pdeathsig KILL unshare --net --mount --pid --uts --ipc --cgroup --fork --kill-child=KILL --mount-proc \
    sh "$dir/init.sh" "$name"
) </dev/null &
holder=$!
# Whoever waits for the machine hears by the end of this pipe that its first process has failed.
exec >/dev/null
# Version 2 lets only leaves hold processes: who waits for the machine leaves its group when the machine has its namespaces.
until [ -n "$(cat "/proc/$holder/task/$holder/children" 2>/dev/null)" ] || ! kill -0 $holder 2>/dev/null; do sleep 0.01; done
for group in $groups; do [ -e "$group/cgroup.controllers" ] && echo $holder >"$group/cgroup.procs"; done
read -r _
# The end of a process namespace's first process is the end of all in it, and its parent hears of it only then.
init=$(cat "/proc/$holder/task/$holder/children" 2>/dev/null) && kill -KILL $init
wait $holder
for group in $groups; do find "$group/$name" -depth -type d -exec rmdir {} \; ; done
rm -rf "$dir"
