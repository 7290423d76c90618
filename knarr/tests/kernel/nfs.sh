# Serves an export by NFS versions 3 and 4 from the host that it runs on. Arguments: where Debian's packages of the server are unpacked, and the
# directory to export, which is made a file system of its own.
set -eu
programs=$1 export=$2
LD_LIBRARY_PATH=$programs/usr/lib/x86_64-linux-gnu:$programs/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH
# Where the packages would have made it.
grep -q '^_rpc:' /etc/passwd || echo '_rpc:x:998:65534::/run/rpcbind:/usr/sbin/nologin' >>/etc/passwd
[ -e /etc/netconfig ] || cp "$programs/etc/netconfig" /etc/
mkdir -p /var/lib/nfs/sm /var/lib/nfs/v4recovery /run/rpcbind
touch /var/lib/nfs/etab /var/lib/nfs/rmtab
modprobe nfsd
mount -t nfsd nfsd /proc/fs/nfsd
mkdir -p "$export"
mount -t tmpfs export "$export"
mkdir -m 777 "$export/data"
"$programs/sbin/rpcbind" -w
echo 10 >/proc/fs/nfsd/nfsv4leasetime
echo 10 >/proc/fs/nfsd/nfsv4gracetime
"$programs/usr/sbin/exportfs" -i -o rw,fsid=0,no_root_squash,no_subtree_check "*:$export"
"$programs/usr/sbin/rpc.mountd"
"$programs/usr/sbin/rpc.nfsd" 4
