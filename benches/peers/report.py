"""Rounds in turn, their ratios, the table, and the versioned JSON."""

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

from install import HERE, Missing

SCHEMA = "tranship.peers/1"


def spread(values):
    """How far repeats lie apart."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "rounds": values,
    }


@dataclass
class Row:
    """One piece of work that all contenders do."""

    name: str
    what: str
    unit: str
    # Less is better where times are measured.
    lower: bool
    aim: float | None
    contenders: list
    skipped: dict = field(default_factory=dict)

    def measure(self, rounds, seconds):
        """Each in turn, round after round, so that other work on the machine hits all alike."""
        chosen = {}
        for contender in self.contenders:
            try:
                chosen[contender.name] = (contender, self.choose(contender, seconds))
            except Missing as why:
                self.skip(contender.name, str(why))
        values = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, (contender, setting) in list(chosen.items()):
                try:
                    values[name].append(contender.measure(setting, seconds))
                except Missing as why:
                    del chosen[name], values[name]
                    self.skip(name, str(why))
        sides = {
            name: {"setting": chosen[name][1].name, **spread(values[name])} for name in chosen
        }
        ours = values.get("tranship")
        ratios = {}
        if ours:
            for name in sides:
                if name != "tranship":
                    ratios[name] = spread([self.ratio(*both) for both in zip(ours, values[name])])
        # The best of the others is the one whose ratio is least.
        least = min((ratio["median"] for ratio in ratios.values()), default=None)
        met = None if self.aim is None or least is None else least >= self.aim
        return {
            "row": self.name,
            "what": self.what,
            "unit": self.unit,
            "better": "lower" if self.lower else "higher",
            "sides": sides,
            "ratios": ratios,
            "aim": self.aim,
            "met": met,
            "skipped": self.skipped,
        }

    def choose(self, contender, seconds):
        """The setting that does best in a short trial."""
        if len(contender.settings) == 1:
            return contender.settings[0]
        trials = [(contender.measure(s, seconds / 2), s) for s in contender.settings]
        best = min if self.lower else max
        return best(trials, key=lambda trial: trial[0])[1]

    def ratio(self, ours, theirs):
        """How many times as good ours is."""
        return theirs / ours if self.lower else ours / theirs

    def skip(self, name, why):
        self.skipped[name] = why
        print(f"skipped: {self.name}: {name}: {why}", file=sys.stderr)


def machine():
    """What the figures were taken on."""
    with open("/proc/cpuinfo", encoding="utf-8") as told:
        cpu = next((l.split(":")[1].strip() for l in told if l.startswith("model name")), "unknown")
    with open("/proc/meminfo", encoding="utf-8") as told:
        memory = int(next(told).split()[1]) * 1024
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "kernel": platform.release(),
        "load_1m": os.getloadavg()[0],
    }


def commit():
    """Which Tranship it was."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip() or "unknown"


def document(rows, rounds, seconds, versions, before):
    """Everything, for a file."""
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": before,
        "load_1m_after": os.getloadavg()[0],
        "versions": {"tranship": commit(), **versions},
        "rounds": rounds,
        "seconds": seconds,
        "counting": [
            "payload bytes count once; a GB is 10^9 bytes",
            "a ratio is tranship by peer of one round; the median over the rounds is given",
            "every contender runs with the best of its settings, chosen by a trial in this run",
            "working set 256 MiB each side, walked through once before anything is measured",
        ],
        "rows": rows,
    }


def write(told, folder):
    """Writes the file and says where."""
    folder.mkdir(parents=True, exist_ok=True)
    day = told["date"][:10]
    words = "".join(c if c.isalnum() else "-" for c in told["machine"]["cpu"].lower()).split("-")
    name = "-".join(w for w in words if w)[:40].strip("-")
    path = folder / f"{day}-{name}-{told['machine']['cores']}c.json"
    path.write_text(json.dumps(told, indent=1) + "\n")
    return path


def table(rows):
    """The ratios, for people."""
    lines = ["| work | unit | tranship | peer | setting of the peer | peer's | ratio | min–max | aim |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ours = row["sides"].get("tranship")
        shown = f"{ours['median']:,.2f}" if ours else "–"
        aim = "" if row["aim"] is None else f"≥ {row['aim']:g}"
        if row["met"] is not None:
            aim += " met" if row["met"] else " **missed**"
        for name, side in row["sides"].items():
            if name == "tranship":
                continue
            ratio = row["ratios"].get(name)
            times = f"**{ratio['median']:.2f}**" if ratio else "–"
            between = f"{ratio['min']:.2f}–{ratio['max']:.2f}" if ratio else "–"
            lines.append(
                f"| {row['what']} | {row['unit']} | {shown} | {name} | {side['setting']} "
                f"| {side['median']:,.2f} | {times} | {between} | {aim} |"
            )
        for name, why in row["skipped"].items():
            lines.append(f"| {row['what']} | | | {name} | skipped: {why} | | | | |")
    return "\n".join(lines)
