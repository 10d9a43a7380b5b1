"""The trial's place and the Airflow beside it, for all tests of this folder that ask for them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import yaml

from cl_steps.commands.demo import OVERRIDES
from cl_steps.demo.nights import write_initial
from cl_steps.operations.begin import init_line
from cl_steps.operations.first_state import Sources
from tests.cluster.airflow import Airflow
from tests.cluster.site import Site, give_keys, install, site
from tests.cluster.trial import LINES, PLACES, PROFILES, SHORT, entry

PORT = 8091


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The servers and the chart's objects, with all lines published to them."""
    folder = tmp_path_factory.mktemp("site")
    with site(folder, tuple(LINES)) as found:
        os.environ.update({key: value for key, value in found.environment().items() if os.environ.get(key) != value})
        lines = [entry(name, found.git) for name in LINES]
        install(found, PROFILES, lines)
        write_initial(folder / "first", seed=0)
        for name in LINES:
            overrides = {**OVERRIDES, **SHORT, "name": name, "gate.approval": name == "wide"}
            init_line(folder / name, Sources(data=str(folder / "first")), overrides)
            give_keys(folder / name, name)
            places = [f"--{key}={value.format(name)}" for key, value in PLACES.items()]
            found.retain("publish", str(folder / name), f"--git={found.git}/{name}.git", *places)
        (folder / "airflow" / ".retain").mkdir(parents=True)
        document = {"profiles": PROFILES, "lines": lines}
        (folder / "airflow" / ".retain" / "lines.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        yield found


@pytest.fixture(scope="session")
def airflow(place: Site) -> Iterator[Airflow]:
    """Airflow on this machine, its steps on the cluster."""
    found = Airflow(place.folder / "airflow", PORT, place.environment("opener"))
    found.start()
    for name in (*LINES, "rollback"):
        found.wait_for_dag(name)
    yield found
    found.stop()
