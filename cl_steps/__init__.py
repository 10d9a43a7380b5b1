"""Retain keeps a generative image model current, night after night, without letting it forget.

Read first: `pipeline.py` (the steps as data), `config.py` (every knob), `errors.py` (how a run can end). Then
one folder answers one question; its `__init__` says which, how one gets in, and what it must not know:

    commands/  orchestration/    a person's command line; Airflow
    operations/                  a night, a new line, a backup from beginning to end
    steps/                       ingest, drift, update, evaluate, gate, promote, close
    acts/ formats/               what a person does afterwards; what other programs read
    trace/ verify/ records/      where did it go; is it what it says; what is written for ever
    learning/ report/ checks/    how it learns; what people look at; what the gate asks
    models/ stats/ data/         a pipeline of diffusers; statistics that decide; images with captions
    run/ landing/                a step as a container runs it; where strangers put things
    repository/ store/ ledger/   Git; DVC's objects; what events and records say

Imports go down this list and never up, without circles: `pyproject.toml` has the contracts. `demo/` stands apart.
"""
