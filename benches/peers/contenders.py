"""Who takes part: how each is started, and which of its settings are tried."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from install import HERE, Missing

SIDES = HERE / "sides"


@dataclass(frozen=True)
class Setting:
    """One way to run a contender."""

    name: str
    arguments: tuple = ()
    environ: dict = field(default_factory=dict)
    # Of several lines of figures, the one of so many operations at once.
    batch: int | None = None


@dataclass
class Contender:
    """One side of a row. Of its settings, the one that does best in a short trial is measured."""

    name: str
    command: list
    settings: list
    figure: str

    def measure(self, setting, seconds):
        """The figures of one run."""
        command = [str(part) for part in (*self.command, *setting.arguments)]
        command += self.time(seconds)
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60 + 20 * seconds,
                env={**os.environ, **setting.environ},
                check=False,
            )
        except FileNotFoundError as error:
            raise Missing(f"{error.filename} is not there") from None
        except subprocess.TimeoutExpired:
            raise Missing(f"no figures within {60 + 20 * seconds:.0f} s") from None
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not lines:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["no output"]
            raise Missing(f"ended with {done.returncode}: {said[-1].strip()[:200]}")
        figures = [json.loads(line) for line in lines]
        if setting.batch is not None:
            figures = [line for line in figures if line["batch"] == setting.batch]
        if len(figures) != 1:
            raise Missing(f"{len(figures)} lines of figures where one was asked for")
        return self.value(figures[0])

    def time(self, seconds):
        """How it is told for how long to measure."""
        return ["--time", str(seconds)]

    def value(self, figures):
        """The figure that counts."""
        return figures[self.figure]


class Tranship(Contender):
    """`tranship bench`, which names its times and figures itself."""

    def time(self, seconds):
        return ["--time", f"{int(seconds * 1000)}ms", "--json"]

    def value(self, figures):
        return figures["keys_per_s" if self.figure == "units_per_s" else self.figure]


NIXL = [Setting("no progress thread"), Setting("progress thread", ("--progress-thread",))]
POOL = [
    Setting("as it comes"),
    Setting("connection pool", environ={"MC_TCP_ENABLE_CONNECTION_POOL": "1"}),
]


def tranship(binary, figure, batches, *arguments):
    """One measurement of `tranship bench`, with each of the batches that it measures."""
    settings = [
        Setting(f"{batch} a call, {polling}", flags, batch=batch)
        for batch in batches
        for polling, flags in (("adaptive", ()), ("busy", ("--busy",)))
    ]
    return Tranship("tranship", [binary, "bench", *arguments], settings, figure)


def has_tcp(binary):
    """Whether this build measures the tcp fabric; if not, why."""
    told = subprocess.run(
        [str(binary), "bench", "transport", "--help"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    ).stdout
    if "- tcp" not in told:
        raise Missing("`tranship bench transport` of this build has no --fabric tcp")


def nixl(python, figure, size, batch, tls=None):
    """NIXL's UCX plug-in; `tls` limits UCX's transports."""
    settings = [
        Setting(s.name, s.arguments, {"UCX_TLS": tls} if tls else {}) for s in NIXL
    ]
    command = [python, SIDES / "nixl_ucx.py", "--size", size, "--batch", batch]
    return Contender("nixl", command, settings, figure)


def mooncake_engine(python, figure, size, batch):
    """Mooncake's transfer engine over tcp."""
    command = [python, SIDES / "mooncake_engine.py", "--size", size, "--batch", batch]
    return Contender("mooncake", command, POOL, figure)


def mooncake_store(python, figure, op, batches):
    """Mooncake's store; each batch with and without its connection pool."""
    settings = [
        Setting(f"{batch} a call, {pool.name}", ("--batch", str(batch)), pool.environ)
        for batch in batches
        for pool in POOL
    ]
    command = [python, SIDES / "mooncake_store.py", "--op", op]
    return Contender("mooncake", command, settings, figure)


def redis(python, server, benchmark, figure, op, batches):
    """Redis, so many requests in a pipeline."""
    settings = [Setting(f"pipeline of {b}", ("--batch", str(b))) for b in batches]
    command = [python, SIDES / "redis_cache.py", "--op", op]
    command += ["--server", server, "--benchmark", benchmark]
    return Contender("redis", command, settings, figure)


def build(cargo, root):
    """The release binary, built when it is not there or older than the code."""
    subprocess.run([cargo, "build", "--release", "-p", "tranship"], cwd=HERE.parents[1], check=True)
    return Path(root, "release", "tranship")
