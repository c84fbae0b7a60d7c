#!/usr/bin/env bash
# Rehearses the README on a machine that has nothing: a minimal Debian in a folder (debootstrap), a
# clean clone of this checkout's HEAD, ./quickstart and ./test, with times. Needs root, debootstrap
# and git. usage: scripts/try_clean_machine.sh bookworm|trixie DIR [--user] [--ci] [--keep] [COMMAND...]
#   DIR        made anew (an old one of this script is removed); DIR.tar keeps the pristine system
#   --user     as an ordinary user with sudo instead of root
#   --ci       run .ci/run instead of ./quickstart and ./test
#   --keep     leave DIR in place afterwards
#   COMMAND    instead of ./quickstart and ./test
# Package clients are set up as on this machine: apt's Acquire options, pip's configuration and
# PIP_* variables, added certificates, resolv.conf and hosts are copied into DIR, and only there.
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() { sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; }
[ $# -ge 2 ] || { usage >&2; exit 2; }
# Mounts live in a namespace of their own and go with it, however this ends.
if [ -z "${QLLM_IN_NAMESPACE:-}" ]; then
  [ "$(id -u)" -eq 0 ] || die "needs root (chroot, mount)"
  have debootstrap || die "debootstrap is not installed"
  QLLM_IN_NAMESPACE=1 exec unshare --mount --propagation private "${BASH_SOURCE[0]}" "$@"
fi

suite=$1 dir=$(readlink -m "$2") user=root keep=no commands=()
shift 2
while [ $# -gt 0 ]; do
  case $1 in
    --user) user=tester ;;
    --ci) commands=("bash .ci/run") ;;
    --keep) keep=yes ;;
    *) commands=("$*"); break ;;
  esac
  shift
done
[ "${#commands[@]}" -gt 0 ] || commands=(./quickstart ./quickstart ./test)

# --- a pristine system ----------------------------------------------------------------------------
if [ -e "$dir" ]; then
  [ -e "$dir/.qllm-clean-machine" ] || die "$dir exists and is not of this script"
  rm -rf --one-file-system "$dir"
fi
mkdir -p "$dir"
touch "$dir/.qllm-clean-machine"
if [ -e "$dir.tar" ]; then
  tar -C "$dir" -xf "$dir.tar"
else
  mirror=$(apt-get indextargets --format '$(SITE)' 'Origin: Debian' 'Created-By: Packages' | head -n 1)
  say "debootstrap $suite (kept as $dir.tar)"
  debootstrap --variant=minbase "$suite" "$dir" ${mirror:+"$mirror"} >"$dir.log" 2>&1 ||
    die "debootstrap failed: $dir.log"
  tar -C "$dir" -cf "$dir.tar" .
fi

# --- package clients as here ----------------------------------------------------------------------
cp /etc/resolv.conf /etc/hosts "$dir/etc/"
apt-config dump | grep -E '^Acquire::(http|https|ftp|Check-|Retries)' >"$dir/etc/apt/apt.conf.d/90host" || true
if [ -d /usr/local/share/ca-certificates ]; then
  mkdir -p "$dir/usr/local/share/ca-certificates"
  cp -r /usr/local/share/ca-certificates/. "$dir/usr/local/share/ca-certificates/"
fi
[ -e /etc/pip.conf ] && cp /etc/pip.conf "$dir/etc/"
[ -e "$HOME/.config/pip/pip.conf" ] && cp "$HOME/.config/pip/pip.conf" "$dir/etc/pip.conf"
mapfile -t environment < <(env | grep -E '^(PIP_|https?_proxy=|no_proxy=|HTTPS?_PROXY=|NO_PROXY=)' |
  grep -v '^PIP_FIND_LINKS=' || true)

mount -t proc proc "$dir/proc"
mount -t sysfs -o ro sysfs "$dir/sys"
mount --rbind /dev "$dir/dev"

inside() { # inside USER COMMAND: in the clone, without standard input and with a bare environment
  local home=/root
  [ "$1" = root ] || home=/home/$1
  chroot "$dir" env -i HOME="$home" LANG=C.UTF-8 "${environment[@]}" \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    su -p -s /bin/bash "$1" -c "cd '$home' && if [ -d qllm ]; then cd qllm; fi && $2" </dev/null
}

home=/root
if [ "$user" != root ]; then
  home=/home/$user
  inside root "apt-get update -qq && apt-get install -y -qq sudo >/dev/null 2>&1 && useradd -m $user &&
    echo '$user ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/$user"
fi
git clone -q "$ROOT" "$dir$home/qllm"
chroot "$dir" chown -R "$user:" "$home/qllm"
say "== $suite, commit $(git -C "$ROOT" rev-parse --short HEAD), $(nproc) cores, as $user"

status=0 summary=()
for command in "${commands[@]}"; do
  say "" && say "== $command"
  start=$SECONDS result=0
  inside "$user" "$command" || result=$?
  summary+=("$suite: $command: $((SECONDS - start)) s, exit status $result")
  [ "$result" -eq 0 ] || { status=$result; break; }
done
say ""
printf '%s\n' "${summary[@]}" >&2
umount -l "$dir/dev" "$dir/sys" "$dir/proc"
[ "$keep" = yes ] || rm -rf --one-file-system "$dir"
exit "$status"
