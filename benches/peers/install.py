"""Peers as their users get them: from PyPI into an environment of our own, from Debian by apt."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Debian's `redis-tools` has the server's program too, and unlike `redis-server` starts no service.
DEBIAN = {"redis-benchmark": "redis-tools", "libibverbs.so.1": "libibverbs1"}


class Missing(Exception):
    """Why something is not there, in words for the table."""


def environment(root):
    """The Python of an environment with the pinned peers; made when it is not there."""
    python = root / "venv" / "bin" / "python"
    wanted = (HERE / "requirements.txt").read_text()
    stamp = root / "venv" / "installed.txt"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing the peers from PyPI into {root / 'venv'}", file=sys.stderr)
    run([sys.executable, "-m", "venv", "--clear", str(root / "venv")], 120)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run([*pip, "--no-deps", "-r", str(HERE / "requirements.txt")], 900)
    stamp.write_text(wanted)
    return python


def versions(python):
    """What is installed: name and version."""
    listed = run([str(python), "-m", "pip", "list", "--format=freeze"], 60)
    return dict(line.split("==") for line in listed.splitlines() if "==" in line)


def program(name):
    """Where a program of Debian is; installed when it is not there."""
    path = shutil.which(name)
    if path is None:
        apt(DEBIAN[name])
        path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not in Debian's package {DEBIAN[name]}")
    return path


def library(name):
    """Makes sure that the loader finds a library of Debian."""
    if name not in run(["/sbin/ldconfig", "-p"], 30):
        apt(DEBIAN[name])


def redis_server(root):
    """Redis's server under its own name, which tells the program what to be."""
    server = shutil.which("redis-server")
    if server:
        return server
    tools = Path(program("redis-benchmark")).with_name("redis-check-rdb")
    link = root / "bin" / "redis-server"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tools)
    return str(link)


def apt(package):
    if os.geteuid() != 0:
        raise Missing(f"{package} is not installed; as root: apt-get install {package}")
    print(f"installing {package} from Debian", file=sys.stderr)
    calm = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], 300, calm)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], 300, calm)


def run(command, seconds, environ=None):
    """The output of a command that must succeed."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, env=environ, check=False
        )
    except FileNotFoundError:
        raise Missing(f"{command[0]} is not on this machine") from None
    except subprocess.TimeoutExpired:
        raise Missing(f"`{' '.join(command)}` took longer than {seconds} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise Missing(f"`{' '.join(command)}` failed: {last}")
    return done.stdout
