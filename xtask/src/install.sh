# Installs the Debian packages named, without starting the services they bring. Run as root.
set -eu

# What package scripts ask before they start a service. A policy that is there already is somebody's decision.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update
# Another package manager at work is waited for.
apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
