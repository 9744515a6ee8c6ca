"""What a batch survives, and what it costs beside the sampling."""

from __future__ import annotations

import statistics

from lines import head, line
from results import latest

CASES = {
    "two": "two processes, left alone",
    "kill": "SIGKILL",
    "term": "SIGTERM",
    "int": "Ctrl-C",
    "one-of-two": "SIGKILL to one of two processes",
}


def batch_kill() -> str:
    """What was left after each kind of stop."""
    data = latest("batch_kill")
    lines = head(["", "stops, with the pictures that were there", "at the end"])
    for name, title in CASES.items():
        case = data["cases"][name]
        stops = ", ".join(str(stop["pictures"]) for stop in case["stops"])
        end = f"{case['lines']} lines, {case['files']} whole files, {case['equal']} equal to an uninterrupted run's"
        lines.append(line([title, f"{len(case['stops'])}: {stops}" if stops else "none", end]))
    note = (
        f"{data['prompts']} prompts, {data['machine']}; the same command each time, on one process and on two in turn."
    )
    return "\n".join([*lines, "", note])


STACKS = {
    "s3": "8 bits, to a bucket, one process",
    "two": "8 bits, to a disk, two processes",
    "int8-files": "8 bits, files, one process and two in turn",
    "int8-shards": "8 bits, shards, one process and two in turn",
    "icc-files": "calibrated, files, one process and two in turn",
    "icc-shards": "calibrated, shards, one process and two in turn",
    "full-files": "8 bits, files, a disk that is full in the middle",
    "full-shards": "8 bits, shards, a disk that is full in the middle",
}


def batch_stacks() -> str:
    """What was left of batches of rounded and calibrated stacks that were killed, or met a full disk."""
    data = latest("batch_stacks")
    lines = head(["", "stops, with the files or shards that were there", "at the end"])
    for name, title in STACKS.items():
        case = data["cases"][name]
        met = [str(stop["there"]) for stop in case["stops"] if stop["code"]]  # else the run was through before
        kept = f"{case['lines']} lines, {case['files']} files or shards"
        end = f"{case['rows']} rows: {kept}, {case['equal']} pictures equal"
        lines.append(line([title, f"{len(met)}: {', '.join(met)}", end]))
    note = f"{data['machine']}; SIGKILL at random moments; equal: to the bytes of an undisturbed run's."
    return "\n".join([*lines, "", note])


def batch_throughput() -> str:
    """Batches against one by one, the writer's share, and a million rows."""
    data = latest("batch_throughput")
    one, many = (data["by_size"][size] for size in ("1", str(data["batch_size"])))
    gains = sorted(data["gains"])
    faster = f"{statistics.median(gains):.2f}x; {gains[0]:.2f} to {gains[-1]:.2f}"
    rows = [
        ["one by one", f"{one['pictures_per_second']:.2f} pictures per second"],
        [f"batches of {data['batch_size']}", f"{many['pictures_per_second']:.2f} pictures per second ({faster})"],
        ["writer and manifest, in a thread", f"{100 * many['write']:.2f} % of the time"],
        ["of that, what the sampling waited for", f"{100 * many['waited']:.2f} % of the time"],
    ]
    for kind, found in data["rows_by_kind"].items():
        grown = found["mib_at_last_picture"] - found["mib_at_first_picture"]
        start = f"first picture after {found['first_picture']:.1f} s, {grown:+.0f} MiB over {data['painted']} pictures"
        end = (
            f"{found['seconds_to_pass_over_all']:.0f} s and {found['mib_more_while_passing_over_all']:+.0f} MiB for all"
        )
        rows.append([f"{data['rows']:,} rows of `{kind}`", f"{start}; {end}"])
    where = f"{data['prompts']} prompts, {data['steps']} steps, {data['machine']}"
    return "\n".join([*head(["", where]), *map(line, rows)])
