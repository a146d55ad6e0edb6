"""All questions in order; an answer that is missing costs only the questions that need it."""

import getpass
import importlib.util
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixgrpo.cluster import fit, probe, site
from mixgrpo.cluster.commands import PATIENCE, Ask, listed, missing_commands
from mixgrpo.cluster.inventory import CONFIG, SINFO, Partition, read_config, read_partitions, span
from mixgrpo.cluster.needs import Need, contradictions, in_order, needs_of, of_site, risks
from mixgrpo.cluster.profile import Profile, read_profile
from mixgrpo.errors import UserError
from mixgrpo.planning.checking import unknown
from mixgrpo.planning.command import make_request
from mixgrpo.planning.running import workflows
from mixgrpo.planning.staleness import Job

Plan = Callable[[Profile], Sequence[Job]]
"""What a run with this profile would do."""
ALL_CORES = "100000"
PLUGINS = ("snakemake_executor_plugin_slurm", "snakemake_executor_plugin_slurm_jobstep")


@dataclass
class Findings:
    """What was found, a sentence each."""

    problems: list[str] = field(default_factory=list)
    """By which jobs would fail, or never start or end."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is good to see."""


@dataclass(frozen=True)
class Cluster:
    """What was learnt of it before any question."""

    partitions: Mapping[str, Partition]
    config: Mapping[str, str]


def planned(preset: str, *, seeds: str, tables: str) -> Plan:
    """Snakemake's own plan of what is asked for."""

    def plan(profile: Profile) -> Sequence[Job]:
        request = make_request(preset, seeds=seeds, tables=tables, cores=1)
        # A dry run would cut threads to one core, and a real submission does not.
        unbounded = () if "cores" in profile.data else ("--cores", ALL_CORES)
        return request.stale_jobs("--workflow-profile", str(profile.path.parent), *unbounded)

    return plan


def preflight(
    path: Path,
    plan: Plan,
    ask: Ask,
    which: Callable[[str], str | None] = shutil.which,
) -> Findings:
    """Everything that can be known before anything is submitted."""
    findings = Findings()
    profile = read(path, findings)
    findings.problems += missing_plugins()
    missing = missing_commands(which)
    findings.problems += missing
    cluster = None if which("sinfo") is None else look(ask, findings)
    needs = read_needs(plan, profile, findings)
    if cluster is None:
        return findings
    findings.notes[:0] = heading(cluster, needs)
    if profile is not None:
        findings.problems += named_partitions(profile, cluster, needs)
        findings.problems += site.status_problems(profile, cluster.config)
        findings.warnings += site.status_warnings(profile)
    if not missing:
        check_needs(needs, cluster, ask, findings)
        findings.warnings += left_jobs(ask)
    return findings


def read(path: Path, findings: Findings) -> Profile | None:
    """The profile, if there is one."""
    try:
        return read_profile(path)
    except UserError as error:
        findings.problems.append(str(error))
        return None


def missing_plugins() -> list[str]:
    """The sentence on what Snakemake submits with."""
    missing = [name.replace("_", "-") for name in PLUGINS if importlib.util.find_spec(name) is None]
    if not missing:
        return []
    return [
        f"{' and '.join(missing)} is not installed in this environment, and without it Snakemake cannot submit. "
        "It stands in requirements.lock: make environment."
    ]


def look(ask: Ask, findings: Findings) -> Cluster | None:
    """Partitions and settings, if the controller answers."""
    answer = ask(*SINFO)
    config = ask(*CONFIG) if answer.is_good else answer
    bad = next((said for said in (answer, config) if not said.is_good), None)
    if bad is not None:
        what = (
            f"did not answer within {PATIENCE:.0f} s"
            if bad.status is None
            else f"cannot be asked: {bad.complaint}"
        )
        findings.problems.append(
            f"Slurm's controller {what.rstrip('.')}. See `sinfo` and `scontrol ping`: is this a login "
            "node, and is the cluster up?"
        )
        return None
    return Cluster(read_partitions(answer.text), read_config(config.text))


def read_needs(plan: Plan, profile: Profile | None, findings: Findings) -> Counter[Need]:
    """What would be submitted, in words too."""
    if profile is None or missing_plugins():
        return Counter()
    try:
        needs = needs_of(plan(profile))
    except UserError as error:
        findings.problems.append(f"the run cannot be planned: {in_short(str(error))}")
        return Counter()
    findings.notes += work(needs)
    return needs


def in_short(words: str) -> str:
    """Snakemake's complaint without what it says each time, or the end of a traceback."""
    lines = [line for line in words.splitlines() if not line.startswith("Using workflow specific")]
    return lines[-1] if "Traceback" in words else "\n".join(lines)


def work(needs: Counter[Need]) -> list[str]:
    """Lines on what is submitted."""
    if not needs:
        return ["to submit: nothing, everything is up to date"]
    rules: Counter[str] = Counter()
    for need, number in needs.items():
        rules[need.rule] += number
    parts = ", ".join(f"{rules[rule]} {rule}" for rule in in_order(rules))
    largest = max(needs, key=lambda n: (n.gpus, n.nodes, n.cpus, n.mem_mb, n.runtime))
    time = f", for {span(largest.runtime)} at most" if largest.runtime else ""
    return [
        f"to submit: {needs.total()} jobs ({parts})",
        f"largest job: {largest.rule}: {largest.size}{time}",
    ]


def heading(cluster: Cluster, needs: Iterable[Need]) -> list[str]:
    """Which Slurm, and the partitions that are used."""
    names = {name for need in needs for name in need.partition.split(",") if need.partition}
    default = fit.default_partition(cluster.partitions.values())
    if not names or any(not need.partition for need in needs):
        names.add(default)
    config = cluster.config
    lines = [f"Slurm {config.get('SLURM_VERSION', '?')}, cluster {config.get('ClusterName', '?')}"]
    return lines + [
        str(cluster.partitions[name]) for name in sorted(names) if name in cluster.partitions
    ]


def named_partitions(profile: Profile, cluster: Cluster, needs: Iterable[Need]) -> list[str]:
    """Partitions of the profile that are not there, also of rules that have nothing to do."""
    used = {name for need in needs for name in need.partition.split(",")}
    return [
        f"{place}: partition {unknown(name, cluster.partitions)} (In {profile.path}.)"
        for place, names in profile.resources("slurm_partition")
        for name in names.split(",")
        if name not in cluster.partitions and name not in used
    ]


def check_needs(needs: Counter[Need], cluster: Cluster, ask: Ask, findings: Findings) -> None:
    """Whether each kind of job can run, and sees this folder when it does."""
    accounts = site.account_problems(needs, cluster.config, ask, user=getpass.getuser())
    wrong = {
        need: [*contradictions(need), *fit.misfits(need, cluster.partitions)] for need in needs
    }
    good = [need for need, found in wrong.items() if not found]
    findings.problems += accounts + by_rule(wrong)
    waits = {need: fit.waits(need, cluster.partitions) for need in good}
    findings.warnings += by_rule({need: risks(need) for need in good}) + by_rule(waits)
    if accounts:
        return
    # Of nodes that are down, sbatch says the same as of those that there are not.
    refused = {need: [] if waits[need] else refusals(need, ask) for need in good}
    findings.problems += by_rule(refused)
    for need in probe.places(need for need in good if not refused[need]):
        probed = probe.probe(need, ask)
        findings.problems += filter(None, [probed.problem])
        findings.warnings += filter(None, [probed.unknown])
        if probed.node:
            findings.notes.append(f"this folder and its Python work on node {probed.node}")


def by_rule(found: Mapping[Need, Sequence[str]]) -> list[str]:
    """Each sentence once, after the rules that it is about."""
    rules: dict[str, list[str]] = {}
    for need, sentences in found.items():
        for sentence in sentences:
            known = rules.setdefault(sentence, [])
            known += [need.rule] if need.rule not in known else []
    every = {need.rule for need in found}
    return [
        f"{'every job' if every == {*names} and len(names) > 2 else listed(in_order(names))}: {sentence}"
        for sentence, names in rules.items()
    ]


def refusals(need: Need, ask: Ask) -> list[str]:
    """What Slurm itself has against such a job, of what was not thought of here."""
    command = trial(need)
    answer = ask(*command)
    if answer.is_good or answer.status is None:
        return []
    said = answer.complaint.removeprefix("allocation failure: ").rstrip(".")
    extra = shlex.split(need.extra) if "option" in said else []
    asked = shlex.join(["sbatch", "--test-only", *of_site(need), *extra])
    return [f"Slurm would refuse it: {said}. Asked was, with what a job needs: {asked}"]


def trial(need: Need) -> list[str]:
    """The job as the plugin would submit it, but that sbatch only says whether it could run."""
    options = ["sbatch", "--test-only", f"--nodes={need.nodes}", f"--ntasks={need.tasks}"]
    options += [f"--mem={need.mem_mb}"] if need.mem_mb else []
    options += [f"-t{max(round(need.runtime), 1)}"] if need.runtime else []
    if need.gpus:
        options += [f"--gpus={':'.join(filter(None, [need.gpu_model, str(need.gpus)]))}"]
    return [*options, *of_site(need), *shlex.split(need.extra), "--wrap=true"]


def left_jobs(ask: Ask) -> list[str]:
    """The warning on jobs of an earlier run."""
    found = site.leftovers(ask(*site.QUEUE).text, Path.cwd())
    return site.leftover_warnings(found, running=bool(workflows()))
