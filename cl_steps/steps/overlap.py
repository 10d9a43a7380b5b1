"""What a run took in that another one, at work at the same time, had taken in first: counted once, by `close` too."""

from __future__ import annotations

from cl_steps.repository.line import Line
from cl_steps.repository.mainline import Mainline
from cl_steps.repository.run_branch import RunState
from cl_steps.store.pointers import lock_outs


def taken_before(main: Mainline, line: Line, state: RunState, base: str) -> int:
    """How many of the assets that a run took in main has, since the commit `base` on which the run began, of others.

    Raises:
        IntegrityError: a manifest is damaged.
        Unavailable: the store cannot be reached.
    """
    own = lock_outs(state.lock).get("tonight/intake")
    ledger = main.ledger()
    later = ledger.intakes.keys() - main.at(base).ledger().intakes.keys() - {state.spec.id} if base else set()
    if not own or not later:
        return 0
    # Here and not above: where no other run took anything in meanwhile, a light process needs none of it.
    from cl_steps.data.manifests import reading_store

    with reading_store(line.store, ledger.replaced) as manifests:

        def names(md5: str) -> set[str]:
            table = manifests.read(md5, columns=["sha256"])
            return set() if table is None else set(table["sha256"].to_pylist())

        others = {name for run in later for name in names(ledger.intakes[run].md5)}
        return len(names(str(own["md5"])) & others)
