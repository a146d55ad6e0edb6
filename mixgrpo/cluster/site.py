"""What the cluster's settings ask of the profile: accounts, status checks; and jobs that an earlier run left."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mixgrpo.cluster.commands import Ask
from mixgrpo.cluster.inventory import number
from mixgrpo.cluster.needs import Need
from mixgrpo.cluster.profile import Profile

ASSOCIATIONS = ("sacctmgr", "-nP", "show", "assoc", "format=account")
DEFAULT_ACCOUNT = ("sacctmgr", "-nP", "show", "user", "format=defaultaccount")
QUEUE = ("squeue", "--me", "-h", "-o", "%i|%T|%Z|%k|%j")
INIT_SECONDS = 40
"""After which the plugin first asks for the state of a job; it wants MinJobAge to be three times that."""
OUTAGE = 600
"""Seconds without an answer of the controller that a run should survive."""


def keeps_accounts(config: Mapping[str, str]) -> bool:
    """Whether there is a database (slurmdbd)."""
    return config.get("AccountingStorageType", "").endswith("slurmdbd")


def status_problems(profile: Profile, config: Mapping[str, str]) -> list[str]:
    """Settings by which Snakemake would miss the end of a job and wait for ever."""
    command = profile.data.get("slurm-status-command")
    has_database = keeps_accounts(config)
    if command != "squeue" and not has_database:
        return [
            f"slurm-status-command is {command or 'not set'} in {profile.path}, and this cluster keeps no accounting "
            f"(AccountingStorageType = {config.get('AccountingStorageType', 'unknown')}): Snakemake would never hear "
            "of the end of a job. Write slurm-status-command: squeue."
        ]
    age = number(config.get("MinJobAge", "300"))
    init = int(profile.number("slurm-init-seconds-before-status-checks", INIT_SECONDS))
    if command == "squeue" and age < 3 * init and not has_database:
        remedy = (
            f"Write slurm-init-seconds-before-status-checks: {age // 3} in {profile.path}"
            if age >= 3
            else "Ask the administrators for a longer MinJobAge"
        )
        return [
            f"squeue forgets a job {age} s after its end (MinJobAge), and the profile asks for at least {3 * init} s, "
            f"3 x slurm-init-seconds-before-status-checks: Snakemake would wait for ever. {remedy}."
        ]
    return []


def status_warnings(profile: Profile) -> list[str]:
    """Too little patience with a controller that does not answer."""
    attempts = profile.number("slurm-status-attempts", 5)
    rate = profile.number("max-status-checks-per-second", 10)
    patience = attempts / rate
    if patience >= OUTAGE:
        return []
    return [
        f"Snakemake loses its jobs for good when the controller does not answer for {patience:.2g} s "
        f"(slurm-status-attempts: {attempts:g}, max-status-checks-per-second: {rate:g} in {profile.path}). "
        "Write slurm-status-attempts: 360 and max-status-checks-per-second: 0.1 for an hour."
    ]


def account_problems(
    needs: Iterable[Need], config: Mapping[str, str], ask: Ask, *, user: str
) -> list[str]:
    """An account that is not the user's, or none where the cluster wants one."""
    if not keeps_accounts(config):
        return []
    answer = ask(*ASSOCIATIONS, f"user={user}")
    accounts = sorted(set(filter(None, map(str.strip, answer.text.splitlines()))))
    if not answer.is_good:
        return []
    given = sorted({need.account or "" for need in needs})
    enforced = "associations" in config.get("AccountingStorageEnforce", "")
    if enforced and not accounts:
        return [
            f"user {user} has no account, and this cluster refuses jobs without one (AccountingStorageEnforce). Ask "
            "its administrators for one."
        ]
    lower = [account.lower() for account in accounts]
    found = [
        f"slurm_account is {account}, which is no account of user {user}: {', '.join(accounts)}. Set one of these in "
        "the profile."
        for account in given
        if account and accounts and account.lower() not in lower
    ]
    if "" in given and enforced and not ask(*DEFAULT_ACCOUNT, user).text.strip():
        found.append(
            "slurm_account is not set in the profile, and this cluster refuses jobs without one. "
            f"Yours are: {', '.join(accounts)}."
        )
    return found


@dataclass(frozen=True)
class Leftover:
    """A job of Slurm that works in our folder though we did not submit it."""

    job_id: str
    state: str
    comment: str

    @property
    def rule(self) -> str:
        """As the plugin notes it.

        >>> Leftover("61", "RUNNING", "rule_train_wildcards_mixgrpo_0").rule
        'rule train, mixgrpo_0'
        """
        name, _, wildcards = self.comment.removeprefix("rule_").partition("_wildcards_")
        return ", ".join(filter(None, [f"rule {name}", wildcards]))


def leftovers(text: str, folder: Path) -> list[Leftover]:
    """Those in what `QUEUE` wrote."""
    found = []
    for line in text.splitlines():
        job_id, state, work, rest = (line.split("|", 3) + [""] * 4)[:4]
        comment = rest.rpartition("|")[0]
        if comment.startswith("rule_") and Path(work).resolve() == folder.resolve():
            found.append(Leftover(job_id, state, comment))
    return found


def leftover_warnings(found: Sequence[Leftover], running: bool) -> list[str]:
    """What to do about them. running: whether a Snakemake of this folder is at work, whose jobs they are."""
    if not found:
        return []
    names = "; ".join(f"{job.job_id} ({job.rule}, {job.state})" for job in found)
    ids = " ".join(job.job_id for job in found)
    if running:
        return [
            f"another run is at work in this folder (make status), with jobs {names}: it holds the lock, "
            "so wait for it."
        ]
    return [
        f"jobs that an earlier run left still work in this folder: {names}. Nothing is trained twice: a new job waits "
        f"for the old one and takes what it made, but occupies its nodes meanwhile. Wait (squeue --me), "
        f"or: scancel {ids}"
    ]
