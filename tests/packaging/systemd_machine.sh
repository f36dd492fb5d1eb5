#!/bin/sh
# Boots systemd as the first process of a machine of its own, over what is installed here: its own processes,
# mounts, network and control groups. What it writes is in memory, and gone with it.
#
# Started by unshare in new namespaces, as root, with a control group of its own:
#   systemd_machine.sh DIRECTORY CHECKOUT SITE_PACKAGES PYTHON
set -eu
directory=$1 checkout=$2 site=$3 python=$4

mount --make-rprivate /
mount -t tmpfs -o mode=755 none "$directory"
cd "$directory"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$directory/upper,workdir=$directory/work" overlay root

# What ai-mux is made of, where the service can see it: no home, no /tmp.
mkdir -p root/opt/ai-mux/bin root/opt/site root/opt/source root/opt/python root/root/ai-mux
mount --bind "$site" root/opt/site
mount --bind "$checkout/src" root/opt/source
mount --bind "$checkout" root/root/ai-mux
case $python in
    /usr/*) interpreter=$python ;;
    *)
        mount --bind "${python%/bin/*}" root/opt/python
        interpreter=/opt/python/bin/${python##*/}
        ;;
esac
cat >root/opt/ai-mux/bin/ai-mux <<EOF
#!/bin/sh
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib
exec $interpreter -m ai_mux "\$@"
EOF
# A stand-in for sudo: root is who types.
cat >root/opt/ai-mux/bin/sudo <<'EOF'
#!/bin/sh
[ "$1" = -u ] || exec "$@"
user=$2
shift 3
exec runuser -u "$user" -- env HOME=/var/lib/ai-mux "$@"
EOF
chmod 755 root/opt/ai-mux/bin/*

cd root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 none run
mount -t tmpfs none tmp
mount -t tmpfs -o mode=755 none dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
touch dev/console
mkdir dev/pts dev/shm dev/mqueue dev/hugepages
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin

# Of the machine's own units only those that a service stands on.
units=usr/lib/systemd/system
mkdir tmp/units
for unit in basic exit final local-fs multi-user network-online network paths shutdown slices sockets swap sysinit \
    timers umount; do
    cp "$units/$unit.target" tmp/units/
done
cp $units/systemd-journald.service $units/systemd-journald.socket $units/systemd-journald-dev-log.socket tmp/units/
mount -t tmpfs -o mode=755 none $units
mkdir $units/sockets.target.wants $units/sysinit.target.wants
cp tmp/units/* $units/
ln -s ../systemd-journald.socket $units/sockets.target.wants/
ln -s ../systemd-journald.service $units/sysinit.target.wants/
for emptied in etc/systemd/system etc/init.d usr/lib/systemd/system-generators; do
    mount -t tmpfs -o mode=755 none "$emptied"
done

mkdir old
pivot_root . old
cd /
umount -l /old
# As systemd itself does where it believes to be on hardware: credentials reach a unit by what is mounted.
mount --make-rshared /
exec env -i container=ai-mux-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=0 --log-target=journal
