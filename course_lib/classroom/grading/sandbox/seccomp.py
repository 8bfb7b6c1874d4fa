"""Linux: calls of the kernel that no answer needs are refused.

They are the ways to what namespaces leave open (keyrings, sockets to a virtual machine's host,
shared memory beside every limit) and those in which the kernel's own bugs are most often found.
On processors other than x86-64 and AArch64 nothing is refused: the other walls stand alone.
"""

import ctypes
import errno
import os
import platform
import struct

LOAD, EQUAL, AT_LEAST, MASKED, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF's instructions
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
CALL, MACHINE, FIRST_ARGUMENT = 0, 4, 16  # places in what the filter sees
NAMESPACES = 0x7E020080  # clone's flags for new namespaces
LOCAL = 1  # the only family of sockets that is allowed, AF_UNIX
SET_SECCOMP, FILTER = 22, 2

# call -> its number on x86-64 and on AArch64; from clone3 on, the two count alike
REFUSED = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "pidfd_getfd": (438, 438),
    "mount_setattr": (442, 442),
    "memfd_secret": (447, 447),
}
# name of the processor -> column above, AUDIT_ARCH, clone, socket
MACHINES = {"x86_64": (0, 0xC000003E, 56, 41), "aarch64": (1, 0xC00000B7, 220, 198)}
CLONE3, X32 = 435, 0x40000000


def program(machine: str) -> bytes:
    """The filter as BPF, eight bytes an instruction.

    >>> len(program("x86_64")) % 8
    0
    """
    column, arch, clone, socket = MACHINES[machine]
    refuse = (RETURN, 0, 0, REFUSE | errno.EPERM)
    steps = [
        (LOAD, 0, 0, MACHINE),
        (EQUAL, 1, 0, arch),
        (RETURN, 0, 0, KILL),  # another processor's calls have other numbers
        (LOAD, 0, 0, CALL),
        (AT_LEAST, 0, 1, X32),
        refuse,
        (EQUAL, 0, 1, CLONE3),  # its flags lie in memory, out of sight; the C library then
        (RETURN, 0, 0, REFUSE | errno.ENOSYS),  # uses clone
    ]
    for numbers in REFUSED.values():
        steps += [(EQUAL, 0, 1, numbers[column]), refuse]
    steps += [(EQUAL, 0, 3, clone), (LOAD, 0, 0, FIRST_ARGUMENT), (MASKED, 0, 1, NAMESPACES)]
    steps += [refuse, (LOAD, 0, 0, CALL), (EQUAL, 0, 3, socket), (LOAD, 0, 0, FIRST_ARGUMENT)]
    steps += [(EQUAL, 1, 0, LOCAL), refuse, (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


def refuse() -> None:
    """Refuse them from now on, for this process and all that come from it."""
    if platform.machine() not in MACHINES:
        return
    code = program(platform.machine())
    text = ctypes.create_string_buffer(code, len(code))
    filters = ctypes.create_string_buffer(
        struct.pack("@HP", len(code) // 8, ctypes.addressof(text))
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(SET_SECCOMP, FILTER, filters, 0, 0):
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
