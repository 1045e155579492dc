"""BPF programs by the system's libbpf: compile, load, attach, run as live frames, read what they counted.

What is attached goes with the network namespace that its interface is in.
"""

import ctypes
import errno
import os
import subprocess

XDP_FLAGS_DRV_MODE = 1 << 2
BPF_TC_INGRESS = 1
BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1
LIVE_FRAMES_MAX = 1 << 30
FLAGS = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-nostdinc",
    "-Wno-unused-variable", "-Wno-address-of-packed-member"]


class TestRunOptions(ctypes.Structure):
    """struct bpf_test_run_opts"""

    _fields_ = [("size", ctypes.c_size_t), ("data_in", ctypes.c_void_p), ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32), ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p), ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32), ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32), ("repeat", ctypes.c_int32), ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32), ("cpu", ctypes.c_uint32), ("batch_size", ctypes.c_uint32)]


class TcHook(ctypes.Structure):
    """struct bpf_tc_hook"""

    _fields_ = [("size", ctypes.c_size_t), ("interface", ctypes.c_int), ("point", ctypes.c_int),
        ("parent", ctypes.c_uint32), ("padding", ctypes.c_uint32)]


class TcOptions(ctypes.Structure):
    """struct bpf_tc_opts"""

    _fields_ = [("size", ctypes.c_size_t), ("program", ctypes.c_int), ("flags", ctypes.c_uint32),
        ("program_id", ctypes.c_uint32), ("handle", ctypes.c_uint32), ("priority", ctypes.c_uint32),
        ("padding", ctypes.c_uint32)]


def library():
    bpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name in ("bpf_object__open_file", "bpf_object__find_program_by_name", "bpf_object__find_map_by_name"):
        getattr(bpf, name).restype = ctypes.c_void_p
    return bpf


BPF = library()


def compile_program(source, folder):
    """The object file's path."""
    target = os.path.join(folder, os.path.basename(source) + ".o")
    subprocess.run([os.environ.get("CLANG", "clang"), *FLAGS, "-c", source, "-o", target], check=True)
    return target


def check(result, what):
    if result < 0:
        raise OSError(-result, f"{what}: {os.strerror(-result)}")
    return result


class Object:
    """A loaded object file, until it is closed. `settings` are the first values of its data sections."""

    def __init__(self, path, settings=()):
        self.handle = ctypes.c_void_p(BPF.bpf_object__open_file(path.encode(), None))
        if not self.handle:
            raise OSError(ctypes.get_errno(), f"{path} cannot be read")
        for section, value in dict(settings).items():
            check(BPF.bpf_map__set_initial_value(self.map(section), value, ctypes.c_size_t(len(value))), section)
        check(BPF.bpf_object__load(self.handle), f"loading {path}")

    def map(self, name):
        found = BPF.bpf_object__find_map_by_name(self.handle, name.encode())
        if not found:
            raise OSError(errno.ENOENT, f"no map {name}")
        return ctypes.c_void_p(found)

    def program(self, name):
        return BPF.bpf_program__fd(
            ctypes.c_void_p(BPF.bpf_object__find_program_by_name(self.handle, name.encode())))

    def read(self, section):
        """A data section's bytes."""
        value = ctypes.create_string_buffer(BPF.bpf_map__value_size(self.map(section)))
        key = ctypes.c_uint32(0)
        check(BPF.bpf_map_lookup_elem(BPF.bpf_map__fd(self.map(section)), ctypes.byref(key), value), section)
        return value.raw

    def write(self, section, value):
        key = ctypes.c_uint32(0)
        descriptor = BPF.bpf_map__fd(self.map(section))
        check(BPF.bpf_map_update_elem(descriptor, ctypes.byref(key), value, ctypes.c_uint64(0)), section)

    def values(self, name):
        """All values of a map with keys of four bytes."""
        descriptor, size = BPF.bpf_map__fd(self.map(name)), BPF.bpf_map__value_size(self.map(name))
        key, value, before = ctypes.c_uint32(), ctypes.create_string_buffer(size), None
        while BPF.bpf_map_get_next_key(descriptor, before, ctypes.byref(key)) == 0:
            check(BPF.bpf_map_lookup_elem(descriptor, ctypes.byref(key), value), name)
            yield value.raw
            before = ctypes.byref(ctypes.c_uint32(key.value))

    def attach_xdp(self, name, interface):
        check(BPF.bpf_xdp_attach(interface, self.program(name), XDP_FLAGS_DRV_MODE, None), f"attaching {name}")

    def attach_tc(self, name, interface):
        hook = TcHook(size=ctypes.sizeof(TcHook), interface=interface, point=BPF_TC_INGRESS)
        options = TcOptions(size=ctypes.sizeof(TcOptions), program=self.program(name))
        check(BPF.bpf_tc_hook_create(ctypes.byref(hook)), "clsact")
        check(BPF.bpf_tc_attach(ctypes.byref(hook), ctypes.byref(options)), f"attaching {name}")

    def run_live_frames(self, name, frame_bytes):
        """Returns when LIVE_FRAMES_MAX were sent; a signal ends it sooner."""
        frame = ctypes.create_string_buffer(frame_bytes)
        options = TestRunOptions(size=ctypes.sizeof(TestRunOptions), data_in=ctypes.addressof(frame),
            data_size_in=frame_bytes, repeat=LIVE_FRAMES_MAX, flags=BPF_F_TEST_XDP_LIVE_FRAMES)
        check(BPF.bpf_prog_test_run_opts(self.program(name), ctypes.byref(options)), "sending live frames")

    def close(self):
        BPF.bpf_object__close(self.handle)
