# Turn the namespaces of this shell into a machine with an ssh server.
# Arguments: name of the machine, and its folders home, shared, repository, packages and extra, which
# it sees in /mnt.
set -e
hostname "$1"
mount -t proc proc /proc
# Mount in /run first, since the folders may lie in /tmp or /mnt, which are hidden below.
mount -t tmpfs tmpfs /run
for folder in home shared repository packages extra; do
    shift
    mkdir "/run/$folder"
    mount --bind "$1" "/run/$folder"
done
for folder in /mnt /tmp /dev/shm; do
    mount -t tmpfs tmpfs "$folder"
done
for folder in home shared repository packages extra; do
    mkdir "/mnt/$folder"
    mount --move "/run/$folder" "/mnt/$folder"
done
# root's home is /mnt/home.
sed 's#^root:.*#root:x:0:0::/mnt/home:/bin/bash#' /etc/passwd > /run/passwd
mount --bind /run/passwd /etc/passwd
ip link set lo up
mkdir /run/sshd
ssh-keygen -q -t ed25519 -N '' -f /run/host_key
# sshd is the first process, and also reaps orphans.
exec "$(command -v sshd)" -D -e -f /dev/null -h /run/host_key -o PidFile=none \
    -o StrictModes=no -o PermitRootLogin=yes -o PasswordAuthentication=no -o UsePAM=no \
    -o 'SetEnv=RAY_OVERRIDE_RESOURCES="{\"CPU\":1}"'
