"""Tensors by name in packs on the disk, mapped into memory: what is costly to compute and may vanish.

    <work>/encoded/<key>/<sha256 of its content>.safetensors      tensors called <name>/<part>

A pack is whole or not there, and named by its content, so that several processes and runs may write beside each other.
They are a help, not the truth: what is broken is passed over, and one that cannot be kept for later stops nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from cl_steps.digests import file_sha256, sha256
from cl_steps.errors import Unavailable
from cl_steps.models.tensors import tensor_bytes
from cl_steps.progress import say
from cl_steps.store.places import Place, open_place

Parts = Mapping[str, Tensor]
"""What belongs to one name."""
PACK_BYTES = 64 * 2**20
SUFFIX = ".safetensors"


class Packs:
    """What lies in `folder`, what was fetched there from `place`, and what is put in.

    What is put in is written pack by pack, the last of it at `flush`, and kept in `place` too. What is there already is
    compared with its name unless `check` says that another process has just done so.
    """

    def __init__(
        self, folder: Path, place: Place | None = None, *, check: bool = True, pack_bytes: int = PACK_BYTES
    ) -> None:
        self._here, self._place, self._pack_bytes = open_place(folder), place, pack_bytes
        self._kept: set[str] = set()
        self._files: dict[str, Any] = {}
        self._index: dict[str, dict[str, list[str]]] = {}
        self._places: dict[str, str] = {}
        self._waiting: dict[str, Parts] = {}
        self._waiting_bytes = 0
        self._fetch()
        for pack in self._here.names() if check else ():
            if pack.endswith(SUFFIX) and file_sha256(self._path(pack)) != pack.removesuffix(SUFFIX):
                say(f"{self._path(pack)} is not what its name says, and is made anew")
                self._drop(pack)
        self.look()

    def __contains__(self, name: str) -> bool:
        """Whether something of this name is there."""
        return name in self._places or name in self._waiting

    def __getitem__(self, name: str) -> dict[str, Tensor]:
        """The tensors of a name, mapped from the disk once they are written."""
        if name in self._waiting:
            return dict(self._waiting[name])
        pack = self._places[name]
        return {part: self._files[pack].get_tensor(f"{name}/{part}") for part in self._index[pack][name]}

    def __setitem__(self, name: str, parts: Parts) -> None:
        """Put something in; the name holds no slash."""
        self._waiting[name] = {part: tensor.detach().cpu().contiguous().clone() for part, tensor in parts.items()}
        self._waiting_bytes += sum(tensor.nbytes for tensor in parts.values())
        if self._waiting_bytes >= self._pack_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        tensors = {f"{name}/{part}": tensor for name, parts in self._waiting.items() for part, tensor in parts.items()}
        content = tensor_bytes(tensors)
        self._here.write(f"{sha256(content)}{SUFFIX}", content)
        self._waiting, self._waiting_bytes = {}, 0
        self.look()

    def look(self) -> None:
        """See what is new in the folder, whoever wrote it, and keep it for later."""
        for pack in self._here.names():
            if pack.endswith(SUFFIX) and pack not in self._files:
                self._open(pack)
                self._keep(pack)

    def only(self, names: Collection[str]) -> None:
        """Take away what has another name, pack by pack: one stays as it is while half of it is asked for."""
        wanted, gone = set(names), []
        for pack, index in self._index.items():
            own = {name for name in index if self._places[name] == pack}
            if 2 * len(own & wanted) < len(index):
                gone.append(pack)
        for name in sorted(wanted & {name for pack in gone for name in self._index[pack]}):
            self[name] = self[name]
        self.flush()
        for pack in gone:
            self._drop(pack)

    def _path(self, pack: str) -> Path:
        return Path(self._here.root) / pack

    def _open(self, pack: str) -> None:
        try:
            file: Any = safe_open(self._path(pack), framework="pt")
        except FileNotFoundError:  # another run had no use for it any more
            return
        self._files[pack], index = file, self._index.setdefault(pack, {})
        for key in file.offset_keys():
            name, _, part = key.partition("/")
            index.setdefault(name, []).append(part)
            self._places[name] = pack

    def _drop(self, pack: str) -> None:
        self._files.pop(pack, None)
        for name in self._index.pop(pack, {}):
            if self._places[name] == pack:
                del self._places[name]
        for place in filter(None, (self._here, self._place)):
            try:
                place.delete(pack)
            except Unavailable as error:
                say(f"{pack} stays for now: {error}")

    def _fetch(self) -> None:
        """Copies of the packs that were kept; where that fails, what they hold is computed anew."""
        if self._place is None:
            return
        try:
            for pack in self._place.names():
                if pack.endswith(SUFFIX):
                    self._here.write(pack, self._place.read(pack))
                    self._kept.add(pack)
        except (Unavailable, FileNotFoundError) as error:
            say(f"what was encoded before cannot be had, and is encoded again: {error}")

    def _keep(self, pack: str) -> None:
        if self._place is None or pack in self._kept:
            return
        try:
            self._place.put(self._path(pack), pack)
            self._kept.add(pack)
        except (Unavailable, FileNotFoundError) as error:
            say(f"{pack} is not kept for later nights: {error}")
