#!/bin/sh
# A user manager of systemd in namespaces of its own, and rh-service with it: systemd_user.sh MANAGER PYTHON
# Run by unshare --mount --pid. Says what it saw, a step a line; "SKIP reason" when no manager can run here.
manager=$1 python=$2
unset DBUS_SESSION_BUS_ADDRESS NOTIFY_SOCKET
mount -t tmpfs tmpfs /run || { echo 'SKIP no mount'; exit 0; }
# "The system was booted with systemd" is what sd_booted(3) looks for, and the manager insists on.
mkdir -p /run/systemd/system /run/user /run/home
chmod 700 /run/user /run/home
export XDG_RUNTIME_DIR=/run/user HOME=/run/home SYSTEMD_LOG_TARGET=console
setsid "$manager" --user >/run/manager.log 2>&1 &
manager_pid=$!
n=0
until systemctl --user is-system-running 2>/dev/null | grep -Eq 'running|degraded'; do
    n=$((n + 1))
    if [ "$n" -gt 50 ]; then echo "SKIP $(tail -n 1 /run/manager.log)"; exit 0; fi
    sleep 0.2
done

rh() { "$python" -P -m rogue_hunter service "$@" --manager systemd; }
status() { rh status --json; }
pid() { systemctl --user show rogue-hunter.service --property=MainPID --value; }
other_than() {    # other_than PID: wait until the service runs as another process, and is ready
    n=0
    while [ "$n" -lt 300 ]; do
        now=$(pid)
        if [ "$now" != 0 ] && [ "$now" != "$1" ] &&
            [ "$(systemctl --user show rogue-hunter.service --property=ActiveState --value)" = active ]; then return; fi
        n=$((n + 1))
        sleep 0.1
    done
}

# The unit's launcher makes an environment on first use; here the interpreter that runs the tests stands for it.
rh install >/dev/null || exit 1
unit=$HOME/.config/systemd/user/rogue-hunter.service
cp "$unit" /run/unit
sed "s|^ExecStart=.*|ExecStart=$python -P -m rogue_hunter pipe --quiet|; s|^UMask|Environment=PYTHONPATH=$PYTHONPATH\nUMask|;
     s|^WatchdogSec=.*|WatchdogSec=3|" /run/unit >"$unit"
systemctl --user daemon-reload
systemctl --user restart rogue-hunter.service || { systemctl --user status rogue-hunter.service; exit 1; }
cp /run/unit "$unit"
# READY comes with the first tick, and with it what it found.
echo "INSTALLED $(status)"
mkdir -p "$HOME/.config/rogue-hunter"
printf '[system]\nhz = 5.0\n' >"$HOME/.config/rogue-hunter/config.toml"
systemctl --user reload rogue-hunter.service
n=0
while [ "$n" -lt 50 ]; do
    said=$("$python" -P -m rogue_hunter service logs -n 100 | grep -o 'configuration read again: system[^"]*') && break
    n=$((n + 1))
    sleep 0.1
done
echo "RELOADED $said"
first=$(pid)
kill -9 "$first"
other_than "$first"
echo "KILLED $(status)"
second=$(pid)
kill -STOP "$second"
other_than "$second"
echo "STARVED $(status)"
rh stop >/dev/null
echo "STOPPED $(status)"
status >/dev/null
echo "RC $?"
echo "EVENTS $("$python" -c 'import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT count(*) FROM process_events WHERE exit_time IS NULL").fetchone()[0])' \
    "$HOME/.local/share/rogue-hunter/rogue-hunter.db")"
rh uninstall >/dev/null || exit 1
echo "UNINSTALLED $(status)"
kill "$manager_pid"
