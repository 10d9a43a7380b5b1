"""How the smoke test runs containers of an image as pods run: by podman, docker, or runc on a mount of buildah."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOBODY = "65532:65532"
Process = subprocess.Popen[str]


class Failed(Exception):
    """A check did not hold; says what was seen."""


@dataclass
class Room:
    """How containers of one image run: with which engine, as whom, and which host folders are their writable places."""

    engine: str
    tag: str
    writable: dict[str, Path]
    folder: Path
    user: str = NOBODY
    root: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    started: int = 0

    def start(self, *args: str, entrypoint: Sequence[str] = (), **environment: str) -> tuple[str, Process]:
        """A running container: its name, and the process that ends with it; its output is one stream."""
        self.started += 1
        name = f"retain-{self.folder.name}-{self.started}".lower()
        make = self._runc if self.engine == "buildah" else self._engine
        command = make(name, list(args), list(entrypoint), environment)
        return name, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *args: str, entrypoint: Sequence[str] = (), timeout: float = 300, **environment: str) -> str:
        """What a container printed; raises Failed where it did not end with 0 in `timeout` seconds."""
        code, said = self.outcome(*args, entrypoint=entrypoint, timeout=timeout, **environment)
        if code:
            raise Failed(f"exit code {code}: {said.strip()[-2000:]}")
        return said

    def outcome(
        self, *args: str, entrypoint: Sequence[str] = (), timeout: float = 300, **environment: str
    ) -> tuple[int, str]:
        """A container's exit code and what it printed; raises Failed where it takes more than `timeout` seconds."""
        name, process = self.start(*args, entrypoint=entrypoint, **environment)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.signal(name, "KILL")
            raise Failed(f"not done after {timeout:.0f} s: {process.communicate()[0].strip()[-2000:]}") from None
        return process.returncode, said

    def signal(self, name: str, which: str) -> None:
        """Send a signal to the container's first process, as a kubelet does."""
        tool = ["runc", "kill", name, which] if self.engine == "buildah" else [self.engine, "kill", "-s", which, name]
        subprocess.run(tool, check=False, capture_output=True)

    def _engine(self, name: str, args: list[str], entrypoint: list[str], environment: dict[str, str]) -> list[str]:
        limits = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none"]
        if self.engine == "podman":
            limits.append("--read-only-tmpfs=false")
        options = [f"--volume={folder}:{place}" for place, folder in self.writable.items()]
        options += [f"--env={key}={value}" for key, value in environment.items()]
        if entrypoint:
            options.append(f"--entrypoint={entrypoint[0]}")
        shown = [self.engine, "run", "--rm", f"--name={name}", f"--user={self.user}", *limits, *options]
        return [*shown, self.tag, *entrypoint[1:], *args]

    def _runc(self, name: str, args: list[str], entrypoint: list[str], environment: dict[str, str]) -> list[str]:
        bundle = self.folder / name
        bundle.mkdir()
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        spec = json.loads((bundle / "config.json").read_text())
        uid, gid = (int(part) for part in self.user.split(":"))
        spec["root"] = {"path": self.root, "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": uid, "gid": gid},
            "args": [*(entrypoint or self.config["Entrypoint"]), *args],
            "env": [*self.config["Env"], *(f"{key}={value}" for key, value in environment.items())],
            "cwd": self.config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        }
        spec["mounts"] += [
            {"destination": place, "source": str(folder), "type": "bind", "options": ["rbind", "rw"]}
            for place, folder in self.writable.items()
        ]
        (bundle / "config.json").write_text(json.dumps(spec))
        return ["runc", "run", "--bundle", str(bundle), name]


def works(engine: str) -> bool:
    """Whether an engine is there and answers; buildah needs runc beside it."""
    if shutil.which(engine) is None or (engine == "buildah" and shutil.which("runc") is None):
        return False
    return subprocess.run([engine, "info"], capture_output=True, check=False).returncode == 0


@contextmanager
def opened(engine: str, tag: str, places: Sequence[str]) -> Iterator[Room]:
    """A room for an image with an empty folder of the host at each of `places`; the folders are gone afterwards.

    Raises:
        Failed: there is no such image.
    """
    folder = Path(tempfile.mkdtemp(prefix="smoke"))
    writable = {place: folder / str(number) for number, place in enumerate(places)}
    for path in writable.values():
        path.mkdir()
        path.chmod(0o777)
    container = ask("buildah", "from", "--pull-never", tag) if engine == "buildah" else ""
    try:
        made = Room(engine, tag, writable, folder)
        if container:
            made.root = ask("buildah", "mount", container)
            made.config = json.loads(ask("buildah", "inspect", "--type", "image", tag))["OCIv1"]["config"]
        yield made
    finally:
        if container:
            ask("buildah", "rm", container)
        shutil.rmtree(folder, ignore_errors=True)


def ask(*command: str) -> str:
    """What a command of the engine prints; raises Failed with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()
