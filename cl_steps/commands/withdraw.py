"""`retain withdraw`: images leave the line for ever; with `--erase`, their bytes leave the store too."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cl_steps.acts.withdrawal import Done, Request, forget
from cl_steps.acts.withdrawal import withdraw as take_out
from cl_steps.documents import Document
from cl_steps.ledger.events import Tombstone, WithdrawalEvent
from cl_steps.records.builders import person
from cl_steps.repository.checkout import refuse_dirty, sync
from cl_steps.repository.line import resolve
from cl_steps.repository.mainline import reading

SHOWN = 20


def withdraw(
    what: str | None,
    source: str | None,
    reason: str,
    erase: bool,
    by: str,
    through: str,
    dir: str,
    json: bool,
    consent_ended: bool = False,
) -> Document | str:
    """Withdraw an image file, a SHA-256, a source, or what consent ended for; raises as `acts.withdrawal.withdraw`."""
    line, folder = resolve(dir), Path(dir)
    if erase:
        refuse_dirty(folder, line)
    ended = datetime.now(UTC).date().isoformat() if consent_ended else None
    done = take_out(line, Request(what, source, reason, erase, by or person(), through, ended))
    if erase:
        sync(folder, line)
        with reading(line.git) as main:
            forget(folder, main.ledger().erased)
    return done.event.document() if json else _text(done)


def _text(done: Done) -> str:
    event = done.event
    if done.before:
        far = "withdrawn and erased" if event.erase else "withdrawn"
        return f"{len(event.assets)} images were {far} already, by event {event.id}: nothing changed"
    shown = [_asset_text(asset) for asset in event.assets[:SHOWN]]
    if len(event.assets) > SHOWN:
        shown.append(f"  and {len(event.assets) - SHOWN} more: --json lists them")
    return "\n".join([f"withdrawn (event {event.id}):", *shown, *_touched_text(event), *_advice(event)])


def _asset_text(asset: Tombstone) -> str:
    where = f"intake {asset['intake']}, {asset['split']}" if asset.get("intake") else "never taken in"
    return f"  {asset['sha256']}  {where}{', a copy' if asset.get('copy') else ''}"


def _touched_text(event: WithdrawalEvent) -> list[str]:
    touched = event.touched
    learnt = (f"{v} ({', '.join(f'{n} {s}' for s, n in counts.items())})" for v, counts in touched["learnt"].items())
    rows = {
        "taken in": ", ".join(touched["intakes"]),
        "learnt by": ", ".join(learnt),
        "tried by": ", ".join(f"{run} ({outcome})" for run, outcome in touched["runs"].items()),
        "descends": ", ".join(touched["descends"]),
        "replayed": ", ".join(touched["replay"]),
        "evaluated": ", ".join(touched["evaluation"]),
        "reference": ", ".join(touched["reference"]),
        "rewritten": ", ".join(f"state/{part}" for part in touched["state"]),
        "erased": f"{len(event.erased)} objects of the store" if event.erase else "",
    }
    return [f"{name:<10} {value}" for name, value in rows.items() if value]


def _advice(event: WithdrawalEvent) -> list[str]:
    lines = ["ingest refuses them and their copies from now on; remove them from the landing"]
    taught = [v for v, counts in event.touched["learnt"].items() if {"train", "probe"} & counts.keys()]
    if taught:
        without = " ".join(f"--without {asset['sha256']}" for asset in event.assets[:SHOWN] if asset.get("intake"))
        lines.append(f"the model itself still carries what {taught[0]} and its descendants learnt from them")
        lines.append(_unlearning(event.touched.get("clean"), without))
    if not event.erase:
        lines.append("their bytes stay in the store, for old versions: --erase deletes them")
    else:
        lines.append("a run that began before may have stored them again: once it has ended, the same command again")
    return lines


def _unlearning(clean: str | None, without: str) -> str:
    if clean is None:
        return "they were there when the line began: only a new line, made without them, is free of them"
    return f"to have it without: retain reproduce --from {clean} {without}"
