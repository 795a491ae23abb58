"""Units of work: control group paths as runtimes, systemd and desktops make them, and processes below wrappers."""

from __future__ import annotations

import pytest

from rogue_hunter.sampling.lineage import Lineage
from rogue_hunter.sampling.units import WRAPPERS, runs_script, unit_of_cgroup
from tests.tools.ticks import row, stream

ID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
SHORT = "container:0123456789ab"
POD = "pod3b5c3f2e-9a4c-4d6e-8f10-0a1b2c3d4e5f"
USER = "/user.slice/user-1000.slice/user@1000.service"

PATHS: list[tuple[str, str | None]] = [
    # Docker
    (f"/system.slice/docker-{ID}.scope", SHORT),
    (f"/docker/{ID}", SHORT),
    (f"/docker/{ID}/system.slice/nginx.service", SHORT),
    (f"/docker/buildx/docker/{ID}", SHORT),
    (f"{USER}/user.slice/docker-{ID}.scope", SHORT),
    (f"/actions_job/{ID}", SHORT),
    (f"/mybatch.slice/docker-{ID}.scope", SHORT),
    ("/system.slice/docker.service", "docker.service"),
    # Podman
    (f"/machine.slice/libpod-{ID}.scope", SHORT),
    (f"/machine.slice/libpod-{ID}.scope/container", SHORT),
    (f"/machine.slice/libpod-conmon-{ID}.scope", SHORT),
    (f"{USER}/user.slice/libpod-{ID}.scope", SHORT),
    (f"{USER}/user.slice/libpod-{ID}.scope/container", SHORT),
    (f"/libpod_parent/libpod-{ID}", SHORT),
    (f"/machine.slice/machine-libpod_pod_{ID}.slice/libpod-{ID[::-1]}.scope", "container:fedcba987654"),
    ("/system.slice/podman.service", "podman.service"),
    # containerd and CRI-O below Kubernetes, by systemd and by plain control groups
    (f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/cri-containerd-{ID}.scope", SHORT),
    (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}.slice/crio-{ID}.scope", SHORT),
    (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-{POD}.slice/crio-conmon-{ID}.scope", SHORT),
    (f"/kubepods.slice/kubepods-{POD}.slice/docker-{ID}.scope", SHORT),
    (f"/kubepods/burstable/{POD}/{ID}", SHORT),
    (f"/kubepods/besteffort/{POD}/{ID}", SHORT),
    (f"/kubepods/{POD}/{ID}", SHORT),
    (f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-{POD}.slice/cri-containerd-{ID}.scope", SHORT),
    (f"/system.slice/containerd.service/kubepods-burstable-{POD}.slice:cri-containerd:{ID}", SHORT),
    (f"/kubepods.slice/kubepods-{POD}.slice:cri-containerd:{ID}", SHORT),
    (f"/kubepods.slice/kubepods-{POD}.slice/crio-{ID}.scope/container", SHORT),
    (f"/k8s.io/{ID}", SHORT),
    (f"/default/{ID}", SHORT),
    (f"/system.slice/nerdctl-{ID}.scope", SHORT),
    (f"/moby/{ID}", SHORT),
    ("/system.slice/containerd.service", "containerd.service"),
    ("/system.slice/kubelet.service", "kubelet.service"),
    # ECS, on machines and Fargate; AWS Batch
    (f"/ecs/0123456789abcdef0123456789abcdef/{ID}", SHORT),
    (f"/ecs/my-cluster/0123456789abcdef0123456789abcdef/{ID}", SHORT),
    ("/ecs/0123456789abcdef0123456789abcdef/0123456789abcdef0123456789abcdef-2667071234", SHORT),
    (f"/ecstasks.slice/ecstasks-0123456789abcdef0123456789abcdef.slice/docker-{ID}.scope", SHORT),
    # Slurm: version 2, several daemons on one machine, version 1
    ("/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", "slurm:4711"),
    ("/system.slice/node1_slurmstepd.scope/job_4711/step_batch/slurm", "slurm:4711"),
    ("/slurm/uid_1000/job_4711/step_extern", "slurm:4711"),
    ("/system.slice/slurmd.service", "slurmd.service"),
    # LXC, LXD, Incus, Proxmox
    ("/lxc/web", "container:web"),
    ("/lxc/web/init.scope", "container:web"),
    ("/lxc.payload.web/system.slice/nginx.service", "container:web"),
    ("/lxc.payload/web", "container:web"),
    ("/lxc.monitor.web", "container:web"),
    ("/lxc/101/ns/system.slice/postfix.service", "container:101"),
    ("/lxc.payload.user-1000_web/init.scope", "container:user-1000_web"),
    # systemd-nspawn and machined
    ("/machine.slice/systemd-nspawn@web.service/payload/system.slice/nginx.service", "container:web"),
    ("/machine.slice/systemd-nspawn@web.service/supervisor", "container:web"),
    ("/machine.slice/machine-web.scope", "container:web"),
    (r"/machine.slice/machine-my\x2dweb.scope/payload", "container:my-web"),
    # Flatpak and Snap
    (f"{USER}/app.slice/app-flatpak-org.mozilla.firefox-12345.scope", "flatpak:org.mozilla.firefox"),
    (f"{USER}/app.slice/app-flatpak-com.spotify.Client-99.scope", "flatpak:com.spotify.Client"),
    (f"{USER}/app.slice/snap.firefox.firefox-7a1c2b3d-1111-2222-3333-444455556666.scope", "snap:firefox.firefox"),
    (f"{USER}/app.slice/snap.code.code.0a1b2c3d-1111-2222-3333-444455556666.scope", "snap:code.code"),
    ("/system.slice/snap.lxd.daemon.service", "snap:lxd.daemon"),
    ("/system.slice/snap.docker.dockerd.service", "snap:docker.dockerd"),
    # services and scopes
    ("/system.slice/nginx.service", "nginx.service"),
    ("/system.slice/postgresql@15-main.service", "postgresql@15-main.service"),
    ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main.service"),
    ("/system.slice/foo.service/workers/1", "foo.service"),
    ("/system.slice/run-u12.scope", "run-u12.scope"),
    ("/system.slice/systemd-journald.service", "systemd-journald.service"),
    ("/system.slice/crowdsec.service", "crowdsec.service"),
    ("/system.slice/stunnel.service", "stunnel.service"),
    ("/system.slice/firewalld.service", "firewalld.service"),
    ("/system.slice/cron-user-0.service", "cron-user-0.service"),
    ("/system.slice/anacron-daily.service", "anacron-daily.service"),
    (f"{USER}/app.slice/syncthing.service", "syncthing.service"),
    (f"{USER}/background.slice/tracker-miner-fs-3.service", "tracker-miner-fs-3.service"),
    (f"{USER}/app.slice/app-gnome-firefox-4711.scope", "app-gnome-firefox-4711.scope"),
    (f"{USER}/app.slice/app-org.kde.dolphin@0a1b.service", "app-org.kde.dolphin@0a1b.service"),
    (f"{USER}/session.slice/org.gnome.Shell@wayland.service", "org.gnome.Shell@wayland.service"),
    # logins, consoles, schedulers: each holds many things
    ("/user.slice/user-1000.slice/session-3.scope", None),
    ("/user.slice/user-1000.slice/session-c1.scope", None),
    (f"{USER}/init.scope", None),
    (USER, None),
    ("/init.scope", None),
    ("/system.slice/sshd.service", None),
    ("/system.slice/ssh.service", None),
    ("/system.slice/sshd@0-10.0.0.1:22-10.0.0.2:51000.service", None),
    (r"/system.slice/system-sshd.slice/sshd@12-192.168.1.2:22-192.168.1.3:4711.service", None),
    ("/system.slice/dropbear@1-10.0.0.1:22.service", None),
    ("/system.slice/cron.service", None),
    ("/system.slice/crond.service", None),
    ("/system.slice/cronie.service", None),
    ("/system.slice/atd.service", None),
    ("/system.slice/anacron.service", None),
    ("/system.slice/fcron.service", None),
    ("/system.slice/system-getty.slice/getty@tty1.service", None),
    ("/system.slice/system-serial\\x2dgetty.slice/serial-getty@ttyS0.service", None),
    # terminals
    (f"{USER}/app.slice/app-org.gnome.Terminal.slice/vte-spawn-0a1b2c3d.scope", None),
    (f"{USER}/app.slice/app-org.gnome.Terminal.slice/gnome-terminal-server.service", None),
    (f"{USER}/app.slice/app-gnome-org.gnome.Terminal-777.scope", None),
    (f"{USER}/app.slice/app-org.gnome.Ptyxis.slice/ptyxis-spawn-8a1.scope", None),
    (f"{USER}/app.slice/app-gnome-org.gnome.Console-12.scope", None),
    (f"{USER}/app.slice/app-org.kde.konsole-0a1b.scope", None),
    (f"{USER}/app.slice/app-org.kde.konsole@0a1b.service", None),
    (f"{USER}/app.slice/app-org.kde.konsole-1.scope/tab(4250).scope", None),
    (f"{USER}/app.slice/app-kitty-999.scope", None),
    (f"{USER}/app.slice/app-com.mitchellh.ghostty-12.scope", None),
    (f"{USER}/app.slice/app-gnome-Alacritty-5.scope", None),
    (f"{USER}/app.slice/app-org.wezfurlong.wezterm-5.scope", None),
    (f"{USER}/app.slice/app-xfce4-terminal-5.scope", None),
    (f"{USER}/app.slice/tmux-spawn-0a1b2c3d.scope", None),
    (f"{USER}/app.slice/tmux.service", None),
    # the root, slices, nonsense
    ("/", None),
    ("/system.slice", None),
    ("/../../system.slice/x.service", "x.service"),
    ("", None),
]


@pytest.mark.parametrize(("path", "unit"), PATHS)
def test_unit_of_a_control_group(path: str, unit: str | None) -> None:
    assert unit_of_cgroup(path) == unit


def test_a_hundred_paths() -> None:
    assert len({path for path, _ in PATHS}) >= 100


@pytest.mark.parametrize("wrapper", sorted(WRAPPERS))
def test_wrappers_are_stepped_over(wrapper: str) -> None:
    """What runs below a wrapper is the unit, not the wrapper."""
    rows = [row(50, 500, command="bash"), row(60, 600, ppid=50, command=wrapper),
            row(70, 700, ppid=60, command="work"), row(80, 800, ppid=70, command="helper")]
    (tick,) = map(Lineage(), stream([rows]))
    assert [made["unit"] for made in tick.processes.values()][2:] == ["work[70]", "work[70]"]


def test_a_session_of_its_own_is_a_unit_of_its_own() -> None:
    """A runner starts one program with setsid and one without."""
    runner = row(7, 1, command="runner", cmdline="runner", session=7)
    rows = [runner, row(8, 2, ppid=7, command="job", cmdline="job", session=8), row(9, 3, ppid=8, command="part",
            cmdline="part", session=8), row(10, 4, ppid=7, command="helper", cmdline="helper", session=7)]
    lineage = Lineage()
    for tick in stream([rows] * 2):
        last = lineage(tick)
    assert {key[0]: one["unit"] for key, one in last.processes.items()} == {
        7: "runner[7]", 8: "job[8]", 9: "job[8]", 10: "runner[7]"}


@pytest.mark.parametrize(("command", "line", "together"), [
    ("fio", "fio --name=hog --numjobs=2", True), ("fio", "postgres: checkpointer", False), ("fio", "fio: worker", True),
    ("fio", "fio --name=other", False), ("other", "fio --name=hog --numjobs=2", False), ("fio", None, False)])
def test_workers_that_a_program_forks_are_its_own(command: str, line: str | None, together: bool) -> None:
    """fio and PostgreSQL give each a session of its own. What a worker is shows when its arguments are known."""
    def rows(line: str | None) -> list[dict[str, object]]:
        return [row(7, 1, command="fio", cmdline="fio --name=hog --numjobs=2", session=7),
                *(row(pid, pid, ppid=7, command=command, cmdline=line, session=pid) for pid in (8, 9))]

    lineage = Lineage()
    last = [lineage(tick) for tick in stream([rows(None), rows(line), rows(line)])][2]
    units = [one["unit"] for one in last.processes.values()]
    assert units == ["fio[7]"] * 3 if together else len(set(units)) == 3


def test_a_unit_takes_the_name_of_the_program_after_exec() -> None:
    """`nice server` at a prompt: the unit is server as soon as nice has become it, for its children too."""
    def rows(command: str) -> list[dict[str, object]]:
        return [row(50, 500, command="bash"), row(60, 600, ppid=50, command=command, cmdline=command),
                row(70, 700, ppid=60, command="worker")]

    ticks = list(map(Lineage(), stream([rows("launcher"), rows("server"), rows("server")])))
    assert [made["unit"] for made in ticks[0].processes.values()][1:] == ["launcher[60]"] * 2
    assert [made["unit"] for made in ticks[2].processes.values()][1:] == ["server[60]"] * 2


def test_orphans_of_one_script_are_one_unit() -> None:
    """A script starts jobs into the background below shells that end at once. Other programs, users and control groups are
    units of their own, and so are shells at a prompt and those not yet described."""
    def orphan(pid: int, **fields: object) -> dict[str, object]:
        return row(pid, 10 * pid, **{"ppid": 1, "command": "python3", "cmdline": "python3 /x/job.py", "uid": 7, "session": pid,
                                     **fields})

    rows = [row(1, 1, command="init"), orphan(50), orphan(51), orphan(52, cmdline="python3 /x/job.py --more"),
            orphan(53, uid=8), orphan(54, cgroup="/other"), orphan(55, cmdline="python3 /x/other.py"),
            orphan(56, command="bash", cmdline="bash"), orphan(57, command="bash", cmdline="-bash"),
            orphan(58, cmdline=None), row(60, 600, ppid=1, command="systemd", cmdline="/lib/systemd/systemd --user"),
            orphan(61, ppid=60), orphan(62, ppid=50, session=50, command="cc", cmdline="cc x.c")]
    (tick,) = map(Lineage(), stream([rows]))
    units = {key[0]: made["unit"] for key, made in tick.processes.items()}
    assert {pid: unit for pid, unit in units.items() if unit != f"job.py[{pid}]"} == {
        1: "init[1]", 51: "job.py[50]", 52: "job.py[50]", 55: "other.py[55]", 56: "bash[56]", 57: "bash[57]",
        58: "python3[58]", 60: "systemd[60]", 61: "job.py[50]", 62: "job.py[50]"}


def test_an_orphan_joins_its_unit_when_it_is_described() -> None:
    """Program and arguments come a tick later; the unit outlives the process that it is named after."""
    job = {"ppid": 1, "command": "python3", "uid": 7, "session": 9}
    known = {**job, "cmdline": "python3 /x/job.py"}
    ticks = list(map(Lineage(), stream([[row(50, 500, **job)], [row(50, 500, **known), row(51, 510, **job)],
                                        [row(51, 510, **known)], [row(52, 520, **known)]])))
    assert [{key[0]: made["unit"] for key, made in tick.processes.items() if not made.get("ended")} for tick in ticks] == [
        {50: "python3[50]"}, {50: "job.py[50]", 51: "python3[51]"}, {51: "job.py[50]"}, {52: "job.py[50]"}]


@pytest.mark.parametrize(("cmdline", "script"), [
    ("bash --init-file /usr/share/code/shellIntegration-bash.sh", False), ("bash -o vi", False), ("-bash", False),
    ("bash --rcfile ~/.rc -i", False), ("zsh -il", False), ("bash", False), ("bash --norc -i", False),
    ("bash --norc x.sh", True), ("sh -ec true", True), ("bash -s", True), ("bash -eo pipefail x.sh", True), ("sh x.sh y", True)])
def test_a_shell_at_a_prompt_runs_no_script(cmdline: str, script: bool) -> None:
    """A file of settings is not a script, and the name of an option is not one either."""
    assert runs_script(cmdline) is script
