"""A small file system that a test may fill. Mounting takes root; without, its tests are skipped."""

import os
import shutil
import subprocess

import pytest


def mount(folder):
    """A file system of 1 MiB at `folder`, or a skip with the reason."""
    if os.getuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount a small disk")
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "kavilo", folder], capture_output=True,
                             check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no mount here: {mounted.stderr.decode().strip()}")


def unmount(folder):
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder):
    """Writes until nothing more fits; removing folder/filler makes room again."""
    with open(folder / "filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
