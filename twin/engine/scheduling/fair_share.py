"""Who had how much of what was promised: usage that fades, and the fair-share factor of each user.

The algorithms of Slurm: "classic" (slurm.schedmd.com/classic_fair_share.html) and "tree", Fair Tree
(slurm.schedmd.com/fair_tree.html), for a tree of two levels: accounts, and the users of each. A user without an account
stands beside the accounts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from twin.engine.jobs.workload import F8, I8
from twin.errors import UsageError


@dataclass(frozen=True, slots=True)
class Tree:
    """Users below accounts, with their shares among their siblings; each level adds up to one."""

    account: I8  # [users], number of the account
    of_account: F8  # [users], share of the user among those of its account
    of_cluster: F8  # [accounts], share of the account of the whole


def tree(users: tuple[str, ...], accounts: Mapping[str, str], shares: Mapping[str, float]) -> Tree:
    """The tree of these users.

    Args:
        users: names.
        accounts: the account of each user that has one.
        shares: of users and accounts by name; 1 where not told.

    Raises:
        UsageError: a share is not above 0, or its name is that of a user and of an account.
    """
    # names that are numbers come as numbers out of a configuration
    of_users = tuple(sorted((str(user), str(account)) for user, account in accounts.items()))
    return _tree(users, of_users, tuple(sorted((str(name), float(share)) for name, share in shares.items())))


@lru_cache(maxsize=8)
def _tree(users: tuple[str, ...], accounts: tuple[tuple[str, str], ...], shares: tuple[tuple[str, float], ...]) -> Tree:
    below, weight = dict(accounts), dict(shares)
    both = set(users) & set(below.values()) & set(weight)
    if both:
        raise UsageError(f"shares name {min(both)!r}, which is a user and an account: rename one of them in accounts")
    wrong = [name for name, share in weight.items() if not 0 < share < np.inf]
    if wrong:
        raise UsageError(f"the shares of {wrong[0]!r} are {weight[wrong[0]]}: they must be above 0")
    # a user and an account of the same name are two
    parents = [(user not in below, below.get(user, user)) for user in users]
    number = {parent: place for place, parent in enumerate(dict.fromkeys(parents))}
    account = np.array([number[parent] for parent in parents], dtype=np.int64)
    mine = np.array([weight.get(user, 1.0) for user in users], dtype=np.float64)
    theirs = np.array([weight.get(name, 1.0) for _, name in number], dtype=np.float64)
    siblings = np.bincount(account, weights=mine, minlength=len(number))
    return Tree(account, mine / siblings[account], theirs / theirs.sum())


def faded(core_s: F8, seconds: float, half_life_s: float) -> F8:
    """What is left of usage after so many seconds: half of it after each half-life."""
    return core_s * np.exp2(-seconds / half_life_s)


def charge(cores: F8, begin_s: F8, until_s: F8, now_s: float, half_life_s: float) -> F8:
    """What is left now of cores held from `begin_s` until `until_s`, in core-seconds.

    The integral of cores 2^(-(now - t) / h) over that time, h the half-life (infinite: nothing fades).
    """
    held_s = np.maximum(until_s - begin_s, 0.0)
    if np.isinf(half_life_s):
        return cores * held_s
    rate = np.log(2.0) / half_life_s
    return cores * np.exp2((until_s - now_s) / half_life_s) * -np.expm1(-rate * held_s) / rate


def classic(usage: F8, shares: Tree, damping: float = 1.0) -> F8:
    """F = 2^(-U / (S d)) of each user [users]: 1 for the unused, 1/2 for those who had just what they were promised.

    U is the effective usage, U_A + (U_parent - U_A) s: the user's own share of all usage, moved towards that of its
    account by its share s among its siblings; S its share of the cluster. Users without an account, and siblings of
    equal shares, are ordered by usage per share; siblings of unequal shares not always, which is why Fair Tree exists.

    Args:
        usage: of each user, faded, in any unit [users].
        shares: the tree.
        damping: d; the larger, the less usage tells.
    """
    total = usage.sum()
    if not total > 0:
        return np.ones(len(usage))
    own = usage / total
    parent = np.bincount(shares.account, weights=own)[shares.account]
    effective = own + (parent - own) * shares.of_account
    return np.exp2(-effective / (shares.of_account * shares.of_cluster[shares.account]) / damping)


def fair_tree(usage: F8, shares: Tree) -> F8:
    """The rank of each user from 1 for the first to 1 / users for the last [users]; who ties shares the better rank.

    Accounts are ranked by share over usage, both among their siblings, and within them their users; so nobody of an
    account that had more than its share goes before one of an account that had less. Accounts that tie are ranked as
    one.
    """
    by_account = np.zeros(len(shares.of_cluster))
    np.add.at(by_account, shares.account, usage)
    of_account = _by_share(shares.of_cluster, by_account, usage.sum())[shares.account]
    of_user = _by_share(shares.of_account, usage, by_account[shares.account])
    _, place, count = np.unique(np.column_stack([of_account, of_user]), axis=0, return_inverse=True, return_counts=True)
    before = np.cumsum(count) - count
    return 1.0 - before[place.ravel()] / max(len(usage), 1)


def _by_share(shares: F8, usage: F8, of: F8 | float) -> F8:
    """Usage over share among siblings; 0 for the unused."""
    promised = shares * of
    return np.where(usage > 0, usage / np.where(promised > 0, promised, 1.0), 0.0)
