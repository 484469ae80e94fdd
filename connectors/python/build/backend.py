"""Builds the wheel: the native module by maturin, and the `tranship` binary that it carries."""

import os
import shutil
import subprocess
from pathlib import Path

from maturin import *  # noqa: F403  the other hooks
import maturin

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
# What is put here is installed beside the interpreter.
SCRIPTS = HERE / "tranship.data" / "scripts"
SCRIPTS.mkdir(parents=True, exist_ok=True)


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    cargo = os.environ.get("CARGO", "cargo")
    subprocess.run([cargo, "build", "--release", "--locked", "-p", "tranship"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    shutil.copy2(ROOT / target / "release" / "tranship", SCRIPTS / "tranship")
    return maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
