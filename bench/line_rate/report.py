"""What a run comes to: whether it is as it should be, a table, a picture and the machine."""

from dataclasses import dataclass
from pathlib import Path

import plot
from others import OTHERS_PERCENT_MAX
from machine import Machine  # beside this folder, which plot has looked up

# Of what the bare receiver of the same backend gets, and what is aimed at.
SHARE_MIN = 0.8
SHARE_AIM = 0.9
# Of all trials: so many may be disturbed.
QUIET_PART = 0.05


@dataclass
class Run:
    options: object
    machine: Machine
    bed: object
    found: list
    trials: list
    # What the pieces of the run were, and peers that failed, and why.
    state: dict
    absent: list

    @property
    def held(self):
        """Trials at a million packets a second."""
        return [trial for trial in self.trials if trial.purpose == "hold"]

    @property
    def sizes(self):
        return self.state["sizes"]

    def total(self, key):
        """Over all pieces: of what is a share, that of the whole time."""
        pieces = self.state["pieces"]
        seconds = sum(piece["seconds"] for piece in pieces)
        return seconds if key == "seconds" else sum(piece[key] * piece["seconds"] for piece in pieces) / max(seconds, 1)

    def quiet(self):
        disturbed = sum(trial.others_percent > OTHERS_PERCENT_MAX for trial in self.trials)
        yield (
            f"Other processes took {self.total('others_percent'):.1f} % of the processors' time, the host {self.total('stolen_percent'):.1f} %."
            f" In {disturbed} of {len(self.trials)} trials it was more than {OTHERS_PERCENT_MAX} % (`others_percent`)."
        )
        if disturbed > QUIET_PART * len(self.trials):
            yield "**The machine was not quiet: other work ran at the same time, and no figure here is to be quoted.**"

    def of(self, receiver, size, flows=None):
        return next(
            (one for one in self.found if (one.receiver, one.size) == (receiver, size) and flows in (None, one.flows)), None
        )

    def shares(self):
        """Of flowscope to the bare receiver of its backend: without loss, and in overload."""
        for one in self.found:
            if not one.receiver.startswith("flowscope-"):
                continue
            bare = self.of(one.receiver.replace("flowscope-", "bare-"), one.size)
            if bare and bare.rate:
                yield one, bare, one.rate / bare.rate, one.overload / max(bare.overload, 1)

    def failures(self):
        failures = [
            f"not exact: {trial.receiver}, {trial.size} bytes, {trial.flows} flows, {trial.asked}/s: {trial.fault}"
            for trial in self.trials if trial.fault
        ]
        for one, bare, share, _ in self.shares():
            if share < SHARE_MIN:
                failures.append(
                    f"{one.receiver}, {one.size} bytes, {one.flows} flows: {share:.0%} of what {bare.receiver} gets,"
                    f" wanted are {SHARE_MIN:.0%}{unshown(one)}"
                )
        for trial in self.held:
            if trial.loss or trial.exact != "yes":
                failures.append(
                    f"{trial.receiver}, {trial.flows} flows: {trial.loss} of {trial.sent} frames lost at {trial.rate:.0f}/s, asked {trial.asked}/s"
                )
            elif trial.rate < 0.999 * float(trial.asked):
                failures.append(f"{trial.receiver}, {trial.flows} flows: the generator sent {trial.rate:.0f}/s of {trial.asked}/s")
        for one in self.found:
            if one.receiver.startswith(("flowscope-", "bare-", "xdp-")):
                continue
            ours = [own for own in self.found if own.receiver.startswith("flowscope-")
                    and (own.size, own.flows) == (one.size, one.flows)]
            for own in ours:
                if own.rate <= one.rate:
                    failures.append(
                        f"{one.receiver}, {one.size} bytes, {one.flows} flows: {one.rate:.0f}/s without loss, {own.receiver} {own.rate:.0f}/s{unshown(own)}"
                    )
        return failures


def write(folder, run, failures):
    (folder / "line-rate.svg").write_text(plot.svg(run.found), encoding="utf-8")
    (folder / "line-rate.md").write_text("\n".join(lines(run, failures)) + "\n", encoding="utf-8")
    print((folder / "line-rate.md").read_text(encoding="utf-8"))


def lines(run, failures):
    options, bed = run.options, run.bed
    yield f"# Line rate, {folder_date(options.out)}"
    yield ""
    yield run.machine.description()
    yield from run.quiet()
    if options.note:
        yield options.note
    yield ""
    if bed.real:
        yield f"From {bed.tx} to {bed.rx}, {options.queues} queue(s)."
    else:
        yield f"A veth pair with {options.queues} queue(s). " + (
            "The kernel's side of receiving ran on the receiver's core, above it in priority and every 50 µs: one core does all that receiving takes."
            if options.napi == "receiver"
            else "The kernel's side of receiving ran on the generator's core: the receiver's core did what is behind it."
        )
    yield (
        f"Generator on core {listed(options.tx_cores)}, receiver on core {listed(options.rx_cores)}, with all its threads."
        f" Trials of {options.seconds:g} s, loss wanted {options.loss:g} %, resolution {options.resolution:g} % (RFC 2544 wants 60 s and none lost), "
        + ("one trial a rate." if options.tries == 1 else f"a rate passes when one of {options.tries} trials does.")
    )
    yield (
        "Sizes are those of RFC 2544, FCS included; frames here have none and are 4 bytes shorter. imix is 64, 594 and 1518 as"
        " 7:4:1. UDP, one direction, flows in turns. flowscope has its defaults, metrics scraped every second, and no output for records."
    )
    yield f"The run took {run.total('seconds') / 60:.0f} minutes, in {len(run.state['pieces'])} piece(s). `trials.csv` has every trial, `line-rate.csv` what is below."
    if run.absent:
        yield f"Not installed: {', '.join(run.absent)}."
    for name, why in run.state["broken"].items():
        yield f"{name} failed and is left out: {why}."
    yield ""
    yield f"## Highest rate {criterion(options)}"
    yield ""
    yield "M packets/s; in brackets what came through of all that the generator can. ≥: the generator gave no more."
    yield ""
    columns = sorted({(one.receiver, one.flows) for one in run.found}, key=lambda c: order(run, c))
    yield "| bytes | " + " | ".join(f"{name}, {short(flows)} flows" for name, flows in columns) + " |"
    yield "|---" * (len(columns) + 1) + "|"
    for size in run.sizes:
        cells = []
        for name, flows in columns:
            one = run.of(name, size, flows)
            more = "≥ " if one and one.limit == "generator" else ""
            cells.append(f"{more}{one.rate / 1e6:.2f} ({one.overload / 1e6:.2f})" if one else "")
        yield f"| {size} | " + " | ".join(cells) + " |"
    shares = list(run.shares())
    if shares:
        yield ""
        yield "## flowscope, as a share of the bare receiver of the same backend"
        yield ""
        yield f"At the highest rate, and in overload. {SHARE_MIN:.0%} are wanted of the first, {SHARE_AIM:.0%} are the aim."
        yield ""
        kinds = list(dict.fromkeys((one.receiver, one.flows) for one, *_ in shares))
        yield "| bytes | " + " | ".join(f"{name}, {short(flows)} flows" for name, flows in kinds) + " |"
        yield "|---" * (len(kinds) + 1) + "|"
        for size in run.sizes:
            cells = []
            for kind in kinds:
                cell = next(
                    (f"{share:.0%}, {over:.0%}" for one, _, share, over in shares if (one.receiver, one.flows, one.size) == (*kind, size)), ""
                )
                cells.append(cell)
            yield f"| {size} | " + " | ".join(cells) + " |"
    if run.held:
        yield ""
        yield f"## A million packets a second of 64 bytes, {options.hold_seconds:g} s"
        yield ""
        yield "| receiver | flows | sent | a second | lost | where | µs of processor a packet: process, driver |"
        yield "|---|---|---|---|---|---|---|"
        for t in run.held:
            cost = [1e6 * used / max(t.delivered, 1) for used in (t.cpu_s, t.napi_s)]
            yield f"| {t.receiver} | {t.flows} | {t.sent} | {t.rate:.0f} | {t.loss} | {t.dropped} | {cost[0]:.2f}, {cost[1]:.2f} |"
    yield ""
    yield "## What was to be met"
    yield ""
    if failures:
        yield from (f"- NOT MET: {failure}" for failure in failures)
    else:
        yield "All of it."


def criterion(options):
    return f"with at most {options.loss:g} % lost" if options.loss else "without loss"


def unshown(one):
    """What a low figure is not: the receiver's."""
    return ", where the generator could not keep its rate: nothing is shown" if one.limit == "generator" else ""


def order(run, column):
    return next(number for number, one in enumerate(run.found) if (one.receiver, one.flows) == column)


def folder_date(out):
    return Path(out).name.removesuffix("-line-rate")


def listed(cores):
    return ", ".join(map(str, cores))


def short(count):
    for unit, name in ((1_000_000, " M"), (1000, " k")):
        if count >= unit and count % unit == 0:
            return f"{count // unit}{name}"
    return str(count)
