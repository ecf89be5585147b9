"""A small ext4 on a loop device, whose power can be cut. Needs root."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

# linux/fs/ext4/ext4.h: _IOR('X', 125, __u32), and the flag by which not even the journal is written.
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


class LoopDisk:
    def __init__(self, image, mount, megabytes):
        self.image, self.path = Path(image), Path(mount)
        self.path.mkdir(parents=True)
        with open(self.image, "wb") as image:
            image.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", "-F", str(self.image))

    def mount(self):
        run("mount", "-o", "loop", str(self.image), str(self.path))

    def unmount(self):
        run("umount", str(self.path))

    def cut_power(self):
        """What was not synced is gone, and nothing more can be written, as when the machine stops."""
        directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(directory)


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
