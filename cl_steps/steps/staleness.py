"""Whether what a run made may still be promoted: one rule, asked by `promote` and by `close`."""

from __future__ import annotations

from cl_steps.ledger.fold import Ledger
from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline
from cl_steps.repository.run_branch import RunState
from cl_steps.store.pointers import lock_outs

LEARNT = ("tonight/batch", "tonight/candidate/replay")


def why_stale(main: Mainline, line: Line, state: RunState) -> str | None:
    """Why a run is stale; None while it is not.

    It is where the state on main is another than the one that it began with, or where something that it learnt, or a
    copy of it, is withdrawn. Its own word on which tombstones there were when it began is not asked: batches hold
    nothing that was withdrawn before.

    Raises:
        IntegrityError: a manifest of what it learnt is damaged.
        Unavailable: the store cannot be reached.
    """
    if main.tree("state") != state.spec.state:
        return f"the champion or its state changed since run {state.spec.id} began: trigger a new run"
    ledger = main.ledger()
    if ledger.tombstones and _is_hit(main, ledger, line, state):
        return f"an image that run {state.spec.id} learnt was withdrawn: trigger a new run"
    return None


def _is_hit(main: Mainline, ledger: Ledger, line: Line, state: RunState) -> bool:
    # Here and not above: where nothing was ever withdrawn, a light process needs none of it.
    from cl_steps.data.manifests import reading_store
    from cl_steps.data.withdrawn import Withdrawn

    withdrawn, rmse = Withdrawn.of(ledger.tombstones.values()), main.params().ingest.near_duplicate_rmse
    outs = lock_outs(state.lock)
    learnt = [str(outs[name]["md5"]) for name in LEARNT if name in outs]
    if any(md5 in ledger.erased for md5 in learnt):
        return True
    with reading_store(line.store) as manifests:
        found = [table for md5 in learnt if (table := manifests.read(md5)) is not None]
    return any(withdrawn.among(table, rmse).any() for table in found)
