"""The kernel's structures and constants on macOS, as ctypes. Nothing is loaded here; this imports anywhere.

Every offset, size and constant was compared with Apple's own headers (macOS SDK 27) for arm64 and x86_64, which agree
in all of them. tests/darwin/abi_facts.txt is the table, checked by every test run; tests/darwin/test_abi.py compiles
it against the headers. A field whose name begins with `_` is padding.
"""

from __future__ import annotations

import ctypes
from ctypes import Structure, c_char, c_int32, c_uint8, c_uint32, c_uint64
from typing import Any, TypeAlias

MAXCOMLEN = 16
PROC_PIDPATHINFO_MAXSIZE = 4096

# proc_pidinfo flavors (sys/proc_info.h; 17 is private, from xnu's sys/proc_info_private.h)
PROC_PIDTASKALLINFO = 2
PROC_PIDTBSDINFO = 3
PROC_PIDTHREADINFO = 5
PROC_PIDLISTTHREADS = 6
PROC_PIDT_SHORTBSDINFO = 13
PROC_PIDUNIQIDENTIFIERINFO = 17

# process status, p_stat (sys/proc.h). SRUN only means "alive": whether a thread runs is in pti_numrunning.
SIDL, SRUN, SSLEEP, SSTOP, SZOMB = 1, 2, 3, 4, 5

# thread states (mach/thread_info.h)
TH_STATE_RUNNING, TH_STATE_STOPPED, TH_STATE_WAITING, TH_STATE_UNINTERRUPTIBLE, TH_STATE_HALTED = 1, 2, 3, 4, 5

# sysctl names by number (sys/sysctl.h)
CTL_KERN, KERN_PROC, KERN_PROC_PID, KERN_PROCARGS2 = 1, 14, 1, 49

# host_processor_info (mach/processor_info.h, mach/machine.h): the ticks of each CPU by state
PROCESSOR_CPU_LOAD_INFO = 2
CPU_STATE_USER, CPU_STATE_SYSTEM, CPU_STATE_IDLE, CPU_STATE_NICE, CPU_STATE_MAX = 0, 1, 2, 3, 4

# quality of service classes (sys/qos.h)
QOS_CLASS_USER_INITIATED = 0x19
QOS_CLASS_UTILITY = 0x11

S_IFCHR = 0o020000
INT32_MAX = 2**31 - 1
"""Where the counters of proc_taskinfo stop: the kernel cuts its wider counter to this (xnu, fill_taskprocinfo)."""

# Errno values of macOS that are tested for. They equal Linux's, so one table serves the tests there too.
EPERM, ESRCH, ENOMEM, EACCES, EINVAL = 1, 3, 12, 13, 22


class Timeval(Structure):
    """struct timeval."""

    _fields_ = (("tv_sec", ctypes.c_int64), ("tv_usec", c_int32), ("_pad", c_int32))


class MachTimebaseInfo(Structure):
    """struct mach_timebase_info: ticks * numer / denom = nanoseconds."""

    _fields_ = (("numer", c_uint32), ("denom", c_uint32))


_Fields: TypeAlias = "tuple[tuple[str, type[ctypes._SimpleCData[Any]] | type[ctypes.Array[Any]]], ...]"


def _u64(*names: str) -> tuple[tuple[str, type[c_uint64]], ...]:
    return tuple((name, c_uint64) for name in names)


_V0: _Fields = (
    ("ri_uuid", c_uint8 * 16),
    *_u64("ri_user_time", "ri_system_time", "ri_pkg_idle_wkups", "ri_interrupt_wkups", "ri_pageins", "ri_wired_size",
          "ri_resident_size", "ri_phys_footprint", "ri_proc_start_abstime", "ri_proc_exit_abstime"),
)
_V1: _Fields = (*_V0, *_u64("ri_child_user_time", "ri_child_system_time", "ri_child_pkg_idle_wkups",
                   "ri_child_interrupt_wkups", "ri_child_pageins", "ri_child_elapsed_abstime"))
_V2: _Fields = (*_V1, *_u64("ri_diskio_bytesread", "ri_diskio_byteswritten"))
_V3: _Fields = (*_V2, *_u64("ri_cpu_time_qos_default", "ri_cpu_time_qos_maintenance", "ri_cpu_time_qos_background",
                   "ri_cpu_time_qos_utility", "ri_cpu_time_qos_legacy", "ri_cpu_time_qos_user_initiated",
                   "ri_cpu_time_qos_user_interactive", "ri_billed_system_time", "ri_serviced_system_time"))
_V4: _Fields = (*_V3, *_u64("ri_logical_writes", "ri_lifetime_max_phys_footprint", "ri_instructions", "ri_cycles",
                   "ri_billed_energy", "ri_serviced_energy", "ri_interval_max_phys_footprint", "ri_runnable_time"))
_V5: _Fields = (*_V4, *_u64("ri_flags"))
# The tail after ri_interval_max_neural_footprint is named by SDK 27 only; older kernels leave it 0.
_V6: _Fields = (*_V5, *_u64("ri_user_ptime", "ri_system_ptime", "ri_pinstructions", "ri_pcycles", "ri_energy_nj",
                   "ri_penergy_nj", "ri_secure_time_in_system", "ri_secure_ptime_in_system", "ri_neural_footprint",
                   "ri_lifetime_max_neural_footprint", "ri_interval_max_neural_footprint"),
       ("_tail", c_uint64 * 9))


class RusageInfoV0(Structure):
    """struct rusage_info_v0. Times are in mach ticks, sizes in bytes; each later version is this and more."""

    _fields_ = _V0


class RusageInfoV1(Structure):
    """struct rusage_info_v1: and the children that were waited for."""

    _fields_ = _V1


class RusageInfoV2(Structure):
    """struct rusage_info_v2: and disk traffic."""

    _fields_ = _V2


class RusageInfoV3(Structure):
    """struct rusage_info_v3: and CPU time by quality of service."""

    _fields_ = _V3


class RusageInfoV4(Structure):
    """struct rusage_info_v4 (macOS 10.13): and instructions, cycles, peak footprint, runnable time."""

    _fields_ = _V4


class RusageInfoV5(Structure):
    """struct rusage_info_v5 (macOS 11): and flags."""

    _fields_ = _V5


class RusageInfoV6(Structure):
    """struct rusage_info_v6 (macOS 13): and energy, in nanojoules. 464 bytes in every SDK since."""

    _fields_ = _V6


RUSAGE: tuple[type[Structure], ...] = (RusageInfoV0, RusageInfoV1, RusageInfoV2, RusageInfoV3, RusageInfoV4,
                                       RusageInfoV5, RusageInfoV6)
"""RUSAGE[n] is what flavor RUSAGE_INFO_Vn of proc_pid_rusage fills."""


class ProcBsdInfo(Structure):
    """struct proc_bsdinfo. `pbi_uid` is the effective user; the start time is wall clock."""

    _fields_ = (
        *((name, c_uint32) for name in ("pbi_flags", "pbi_status", "pbi_xstatus", "pbi_pid", "pbi_ppid", "pbi_uid",
                                        "pbi_gid", "pbi_ruid", "pbi_rgid", "pbi_svuid", "pbi_svgid", "rfu_1")),
        ("pbi_comm", c_char * MAXCOMLEN), ("pbi_name", c_char * (2 * MAXCOMLEN)),
        ("pbi_nfiles", c_uint32), ("pbi_pgid", c_uint32), ("pbi_pjobc", c_uint32), ("e_tdev", c_uint32),
        ("e_tpgid", c_uint32), ("pbi_nice", c_int32), ("pbi_start_tvsec", c_uint64), ("pbi_start_tvusec", c_uint64),
    )


class ProcBsdShortInfo(Structure):
    """struct proc_bsdshortinfo: what may be read of any user's process."""

    _fields_ = (
        ("pbsi_pid", c_uint32), ("pbsi_ppid", c_uint32), ("pbsi_pgid", c_uint32), ("pbsi_status", c_uint32),
        ("pbsi_comm", c_char * MAXCOMLEN),
        *((name, c_uint32) for name in ("pbsi_flags", "pbsi_uid", "pbsi_gid", "pbsi_ruid", "pbsi_rgid", "pbsi_svuid",
                                        "pbsi_svgid", "pbsi_rfu")),
    )


class ProcTaskInfo(Structure):
    """struct proc_taskinfo. Times are mach ticks, threads that ended included; the counters stop at INT32_MAX."""

    _fields_ = (
        *_u64("pti_virtual_size", "pti_resident_size", "pti_total_user", "pti_total_system", "pti_threads_user",
              "pti_threads_system"),
        *((name, c_int32) for name in ("pti_policy", "pti_faults", "pti_pageins", "pti_cow_faults",
                                       "pti_messages_sent", "pti_messages_received", "pti_syscalls_mach",
                                       "pti_syscalls_unix", "pti_csw", "pti_threadnum", "pti_numrunning",
                                       "pti_priority")),
    )


class ProcTaskAllInfo(Structure):
    """struct proc_taskallinfo."""

    _fields_ = (("pbsd", ProcBsdInfo), ("ptinfo", ProcTaskInfo))


class ProcThreadInfo(Structure):
    """struct proc_threadinfo. Its times are nanoseconds, unlike every other time here."""

    _fields_ = (
        ("pth_user_time", c_uint64), ("pth_system_time", c_uint64),
        *((name, c_int32) for name in ("pth_cpu_usage", "pth_policy", "pth_run_state", "pth_flags", "pth_sleep_time",
                                       "pth_curpri", "pth_priority", "pth_maxpriority")),
        ("pth_name", c_char * 64),
    )


class ProcUniqIdentifierInfo(Structure):
    """struct proc_uniqidentifierinfo (private). `p_uniqueid` is never used twice in a boot; `p_idversion` also
    changes with each exec (and is 0 before macOS 11, where its bytes were reserved)."""

    _fields_ = (("p_uuid", c_uint8 * 16), ("p_uniqueid", c_uint64), ("p_puniqueid", c_uint64),
                ("p_idversion", c_int32), ("p_orig_ppidversion", c_int32), ("p_reserve2", c_uint64),
                ("p_reserve3", c_uint64))


class KinfoProc(Structure):
    """struct kinfo_proc, the fields used here: sysctl's view of a process, given for every user's processes and for
    the defunct. It is the only source of another user's process's start time."""

    _fields_ = (
        ("p_starttime", Timeval), ("_pad0", c_uint8 * 16), ("p_flag", c_int32), ("p_stat", ctypes.c_int8),
        ("_pad1", c_uint8 * 3), ("p_pid", c_int32), ("_pad2", c_uint8 * 198), ("p_nice", ctypes.c_int8),
        ("p_comm", c_char * (MAXCOMLEN + 1)), ("_pad3", c_uint8 * 132), ("p_ruid", c_uint32),
        ("_pad4", c_uint8 * 24), ("cr_uid", c_uint32), ("_pad5", c_uint8 * 136), ("e_ppid", c_int32),
        ("_pad6", c_uint8 * 8), ("e_tdev", c_int32), ("_pad7", c_uint8 * 72),
    )
