"""Actions that say more than which job starts: on GPUs of which group of nodes, or under which power limit.

With C choices for each of K slots, action `slot x C + choice` starts the slot's job so, and `K x C` waits. A choice is
noted at the job (`jobs[:, CHOICE]`), and the start reads it there.
"""

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64, Words
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit
from lepton_rl.core.placement import fits, place_fitting
from lepton_rl.core.power import limit_held


@inlined
def only_type(wish: float, choice: int) -> float:
    """Of the types that a job may run on, the one that the choice stands for: each group has a type of its own."""
    return float(int(wish) & (1 << (choice - 1)))


@inlined
def place_as_chosen(
    rule: int, jobs: Floats, job: int, gpus: Ints32, nodes: Ints32, bits: Words, totals: Ints64, hw: Hardware
) -> None:
    """Hold GPUs for a fitting job: of the chosen group, or limited to the chosen power. A struck job is free again."""
    if hw is None:
        place_fitting(rule, jobs, job, gpus, nodes, bits, totals, hw)
        return
    choice = int(jobs[job, L.CHOICE])
    jobs[job, L.CHOICE] = 0.0
    limits = hw.levels_mw.shape[1] > 0
    wish = jobs[job, L.TYPES]
    if choice > 0 and not limits:
        jobs[job, L.TYPES] = only_type(wish, choice)
    place_fitting(rule, jobs, job, gpus, nodes, bits, totals, hw)
    jobs[job, L.TYPES] = wish
    if limits:
        limit_held(jobs, job, choice, gpus, nodes, totals, hw)


@njit
def note_choices(
    actions: Ints64, choices: int, window: int, valid: Bools, jobs: Floats, queue: Ints32, counts: Ints64, slots: Ints64
) -> None:
    """Write the slot that each environment's action names, and note the choice at its job.

    `slots` gets the number of slots for waiting and -1 for an action that `valid` forbids, or that starts nothing.
    """
    waits = valid.shape[1] - 1
    starts = window * choices
    for env in range(actions.shape[0]):
        action = actions[env]
        slots[env] = -1
        if 0 <= action < starts and valid[env, action]:
            slots[env] = action // choices
            job = queue[env, counts[env, L.FRONT] + slots[env]]
            jobs[env, job, L.CHOICE] = action % choices
        elif action == waits:
            slots[env] = window


@njit
def write_choices(
    choices: int, jobs: Floats, queue: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    counts: Ints64, rules: Ints64, mask: Bools, valid: Bools,
) -> None:  # fmt: skip
    """Write which starts of one environment are valid, and whether waiting is; `mask` says which slots' jobs fit."""
    if hw is None:
        return
    slots = mask.shape[0] - 1
    for slot in range(slots):
        for choice in range(choices):
            valid[slot * choices + choice] = mask[slot]
        if mask[slot] and hw.levels_mw.shape[1] == 0:
            job = queue[counts[L.FRONT] + slot]
            wish = jobs[job, L.TYPES]
            for choice in range(1, choices):
                jobs[job, L.TYPES] = only_type(wish, choice)
                valid[slot * choices + choice] = jobs[job, L.TYPES] > 0.0 and fits(
                    rules[L.PLACEMENT], jobs, job, gpus, nodes, totals, hw
                )
            jobs[job, L.TYPES] = wish
    valid[valid.shape[0] - 1] = mask[slots]


@njit
def write_all_choices(
    choices: int, jobs: Floats, queue: Ints32, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware,
    counts: Ints64, rules: Ints64, mask: Bools, valid: Bools,
) -> None:  # fmt: skip
    """Do so for every environment."""
    for env in range(mask.shape[0]):
        write_choices(
            choices, jobs[env], queue[env], gpus[env], nodes[env], totals[env], hw, counts[env], rules, mask[env],
            valid[env],
        )  # fmt: skip
