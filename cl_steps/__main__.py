"""The command line: a table of commands, one command one function, loaded only when it is called."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from cl_steps.data.quarantine import printable
from cl_steps.errors import FaultsFound
from cl_steps.foreign import told
from cl_steps.pipeline import STAGES, STEPS
from cl_steps.run.stopping import EXIT_TERMINATED, asked_to_stop, how_to_go_on, stopping
from cl_steps.version import version


@dataclass(frozen=True)
class Argument:
    """One argument of a command, as argparse takes it."""

    names: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """A command: what it is called and does, its arguments, and `module:function` that does it."""

    name: str
    summary: str
    function: str
    arguments: tuple[Argument, ...] = ()


def arg(*names: str, **options: Any) -> Argument:
    """An argument, written as for argparse."""
    return Argument(names, options)


DIR = arg("dir", nargs="?", default=".", metavar="DIR", help="the workspace (default: this folder)")
JSON = arg("--json", action="store_true", help="one JSON document on stdout, nothing else")
RUN = arg("run", metavar="RUN", help="the run's id, as `retain runs` lists it")
REASON = arg("--reason", required=True, help="why; it is recorded")
BY = arg("--by", default="", help="who answers (default: you, as claimed)")
THROUGH = arg("--through", choices=["command line", "airflow"], default="command line", help=argparse.SUPPRESS)
IN = arg("--dir", default=".", metavar="DIR", help="the workspace (default: this folder)")
VERSION = arg("version", metavar="VERSION", help="such as v7, or champion")
HTML = arg("--html", default=None, metavar="FILE", help="write it as a page, too")
LIKE = arg(
    "--like",
    default=None,
    metavar="PATH_OR_HUB_ID",
    help="where the base is one .safetensors file: a pipeline of its family (default: the hub's that diffusers knows)",
)
PASSPHRASE = arg("--passphrase-file", default=None, metavar="FILE", help="the file with the keys' passphrase")

COMMANDS = (
    Command(
        "init", "a new line from a diffusers pipeline", "cl_steps.commands.init:init",
        (
            arg("dir", metavar="DIR", help="the folder to make; its last part names the line"),
            arg("--base", default=None, metavar="PATH_OR_HUB_ID", help="the diffusers pipeline (default: the demo's)"),
            LIKE,
            arg("--extractor", default=None, metavar="PATH_OR_HUB_ID", help="the CLIP model that sees"),
            arg("--data", default=None, metavar="FOLDER_OR_URL", help="real pictures of what it knows"),
            arg("--adapter", default=None, metavar="FILE", help="a LoRA to go on from, of whatever tool"),
            arg("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter of the new params.yaml"),
        ),
    ),
    Command(
        "methods", "the remedies against forgetting, and their knobs", "cl_steps.commands.methods:methods", (JSON,)
    ),
    Command(
        "night", "one whole run here and now", "cl_steps.commands.night:night",
        (
            DIR,
            arg("--until", choices=[stage.name for stage in STAGES], help="stop after this step"),
            arg("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter, for this run alone"),
            arg("--batch", default=None, metavar="RUN", help="learn the stored batch of this run"),
            arg("--force", action="store_true", help="learn also where drift is quiet"),
            arg("--reason", default="", help="why; it is recorded"),
            arg("--run", default=None, metavar="RUN", help="go on with this run instead of a new one"),
            arg("--no-promote", action="store_true", help="stop before promotion"),
            arg("--offline", action="store_true", help="use no network at all"),
        ),
    ),
    Command(
        "check", "what would be taken of a landing, and why the rest would not", "cl_steps.commands.check:check",
        (
            arg("folder", metavar="FOLDER", help="the landing: a folder, or a URL such as s3://... or hf://owner/name"),
            IN,
            arg("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter, for this look alone"),
            arg("--base", default=None, metavar="PATH_OR_HUB_ID", help="whose text encoders read the captions"),
            JSON,
        ),
    ),
    Command(
        "step", "one step of a run, as a container runs it", "cl_steps.commands.step:step",
        (
            arg("name", metavar="NAME", help=", ".join(STEPS)),
            arg("--workspace", default=None, metavar="URL", help="a workspace's folder or Git URL"),
            arg("--run", default=None, metavar="RUN", help="the run's id"),
        ),
    ),
    Command(
        "status", "where a line stands", "cl_steps.commands.status:status",
        (DIR, arg("--remote", action="store_true", help="ask the store, too, how much it holds"), JSON),
    ),
    Command("versions", "every version and its scores", "cl_steps.commands.status:versions", (DIR, JSON)),
    Command("runs", "every run and how it ended", "cl_steps.commands.status:runs", (DIR, JSON)),
    Command("approve", "say yes to a held run", "cl_steps.commands.answer:approve", (RUN, REASON, BY, THROUGH, IN)),
    Command("refuse", "say no to a held run", "cl_steps.commands.answer:refuse", (RUN, REASON, BY, THROUGH, IN)),
    Command(
        "sample", "pictures of a prompt", "cl_steps.commands.sample:sample",
        (
            arg("prompt", metavar="PROMPT"),
            IN,
            arg("--version", default=None, metavar="v7", help="the version (default: the champion)"),
            arg("--out", default="sample.png", metavar="FILE", help="where to write the PNG (default: sample.png)"),
            arg("--count", type=int, default=4, help="how many pictures, side by side (default: 4)"),
            arg("--seed", type=int, default=0, help="the first picture's seed (default: 0)"),
        ),
    ),
    Command(
        "report", "the line's page", "cl_steps.commands.report:report",
        (
            DIR,
            arg("--to", default="", metavar="PLACE", help="a folder or URL to write it into (default: reports/)"),
            arg("--open", action="store_true", help="open it in a browser"),
        ),
    ),
    Command(
        "export", "a version as a plain diffusers pipeline or LoRA", "cl_steps.commands.export:export",
        (
            arg("version", metavar="VERSION", help="v7, or champion"),
            arg("out", metavar="FOLDER", help="a folder that is not there yet"),
            IN,
            arg("--merged", action="store_true", help="the whole pipeline with the adapter in its weights"),
            arg("--format", choices=["diffusers", "comfyui"], default="diffusers", help="comfyui: the LoRA alone"),
        ),
    ),
    Command(
        "lineage", "what made a version", "cl_steps.commands.lineage:lineage", (VERSION, IN, HTML, JSON),
    ),
    Command(
        "diff", "what changed from one version to another", "cl_steps.commands.diff:diff",
        (
            arg("old", metavar="OLD", help="such as v6"),
            arg("new", metavar="NEW", help="such as v7, or champion"),
            IN, HTML, JSON,
        ),
    ),
    Command(
        "verify", "recompute every digest and signature", "cl_steps.commands.verify:verify",
        (
            arg("version", nargs="?", default="champion", metavar="VERSION", help="such as v7 (default: champion)"),
            arg("--all", action="store_true", help="every version, event and intake"),
            arg("--keys", default=None, metavar="FILE", help="whose signatures count (default: the deployment's)"),
            IN, JSON,
        ),
    ),
    Command(
        "audit", "verify all, recount the quarantine, ask the sealed images", "cl_steps.commands.audit:audit",
        (DIR, arg("--no-sealed", action="store_true", help="leave the sealed images out: they need a model"), JSON),
    ),
    Command(
        "keys", "make or change the keys that sign versions", "cl_steps.commands.keys:keys",
        (
            arg("folder", metavar="FOLDER", help="where they lie; a folder that is not there yet, or with --rotate"),
            arg("--name", default="retain", metavar="NAME", help="what the key is called (default: retain)"),
            arg("--rotate", action="store_true", help="a new key; the one before counts for what it signed so far"),
        ),
    ),
    Command(
        "asset", "where an image went", "cl_steps.commands.asset:asset",
        (
            arg("what", metavar="FILE_OR_SHA", help="an image file, or its SHA-256"),
            IN,
            arg("--near", action="store_true", help="its near-duplicates too"),
            JSON,
        ),
    ),
    Command(
        "withdraw", "take an image out, for ever", "cl_steps.commands.withdraw:withdraw",
        (
            arg("what", nargs="?", default=None, metavar="FILE_OR_SHA", help="an image file, or its SHA-256"),
            arg("--source", default=None, metavar="NAME", help="all images of this source instead"),
            arg("--consent-ended", action="store_true", help="all whose consent has ended (consent_until) instead"),
            REASON,
            arg("--erase", action="store_true", help="delete the bytes that hold it, those of old versions too"),
            BY, THROUGH, IN, JSON,
        ),
    ),
    Command(
        "rollback", "an older version is the champion again", "cl_steps.commands.rollback:rollback",
        (
            arg("version", metavar="VERSION", help="such as v6"),
            REASON,
            arg("--relearn", action="store_true", help="learn again what later versions had learnt"),
            BY, THROUGH, IN,
        ),
    ),
    Command(
        "rebase", "a new base under the line, gated like a candidate", "cl_steps.commands.rebase:rebase",
        (
            arg("base", metavar="BASE", help="the diffusers pipeline: a folder, a .safetensors file or a hub id"),
            DIR,
            REASON,
            LIKE,
            arg("--set", action="append", default=[], metavar="KEY=VALUE", help="a parameter, for this run alone"),
            arg("--no-promote", action="store_true", help="stop before promotion"),
        ),
    ),
    Command(
        "reproduce", "make a version again and compare", "cl_steps.commands.reproduce:reproduce",
        (
            arg("version", nargs="?", default="champion", metavar="VERSION", help="such as v7 (default: champion)"),
            arg("--from", dest="start", default=None, metavar="v3", help="play the line again from this version on"),
            arg("--without", action="append", default=[], metavar="SHA", help="as if it had never arrived"),
            arg("--to", default=None, metavar="FOLDER", help="keep what was made, as a workspace"),
            IN, JSON,
        ),
    ),
    Command(
        "prune", "let go of old runs that came to nothing", "cl_steps.commands.prune:prune",
        (
            DIR,
            arg("--days", type=float, default=30, metavar="N", help="keep what is younger (default: 30)"),
            arg("--dry-run", action="store_true", help="say what would go"),
            JSON,
        ),
    ),
    Command("migrate", "a workspace of an older format", "cl_steps.commands.migrate:migrate", (DIR,)),
    Command(
        "mark", "content credentials (C2PA) in generated images", "cl_steps.commands.mark:mark",
        (
            arg("images", nargs="+", metavar="IMAGE", help="PNG, JPEG or WebP files"),
            arg("--version", required=True, metavar="v7", help="the version that drew them"),
            arg("--certificates", required=True, metavar="FILE", help="the chain of certificates, PEM"),
            arg("--key", required=True, metavar="FILE", help="the private key of the first, PEM"),
            arg("--to", default=None, metavar="FOLDER", help="where to write (default: in place)"),
            IN,
        ),
    ),
    Command(
        "mirror", "show versions in an MLflow registry", "cl_steps.commands.mirror:mirror",
        (DIR, arg("--mlflow", required=True, metavar="URL", help="the tracking server"), JSON),
    ),
    Command(
        "backup", "a copy of a line's Git, and of its keys", "cl_steps.commands.backup:backup",
        (
            arg("dir", metavar="WORKSPACE", help="the workspace's folder or Git URL"),
            arg("to", metavar="TO", help="the folder or URL (s3://...) where its backups lie, one folder each"),
            arg("--keep", type=int, default=14, metavar="N", help="delete all but the N newest (default: 14)"),
            arg("--keys", default=None, metavar="FOLDER", help="keys to take along, encrypted"),
            PASSPHRASE,
            JSON,
        ),
    ),
    Command(
        "restore", "a backup into an empty Git remote", "cl_steps.commands.backup:restore",
        (
            arg("source", metavar="FROM", help="a backup, or where backups lie: then the newest"),
            arg("to", metavar="GIT", help="an empty Git remote's URL, or a folder that is not there yet"),
            arg("--keys-to", default=None, metavar="FOLDER", help="where to write the keys"),
            PASSPHRASE,
        ),
    ),
    Command(
        "watch", "whether lines still have their nights", "cl_steps.commands.watch:watch",
        (
            arg("lines", metavar="LINES", help="the lines.yaml that names them"),
            arg("--hours", type=float, default=None, metavar="H", help="fail where no run finished for so long"),
            arg("--line", default=None, metavar="NAME", help="look at this line alone"),
            arg("--store", action="store_true", help="ask also the store for all of the champion"),
            arg("--heads", default=None, metavar="FILE", help="remembers each main, and sees an older one pushed back"),
            JSON,
        ),
    ),
    Command(
        "rights", "whether a credential may do what its role must not", "cl_steps.commands.rights:rights",
        (
            DIR,
            arg("--role", required=True, choices=["step", "opener"], help="whose credential this process has"),
        ),
    ),
    Command(
        "publish", "a line of this machine moves to shared remotes", "cl_steps.commands.publish:publish",
        (
            DIR,
            arg("--git", required=True, metavar="URL", help="an empty Git remote"),
            arg("--store", required=True, metavar="URL", help="the DVC store, such as s3://bucket/line"),
            arg("--work", default=None, metavar="URL", help="the place for checkpoints (default: as before)"),
            arg("--landing", default=None, metavar="URL", help="where new assets arrive (default: as before)"),
        ),
    ),
    Command(
        "demo", "the demo line: four nights and a bad idea", "cl_steps.commands.demo:demo",
        (
            arg("dir", nargs="?", default="demo-line", metavar="DIR", help="where to play (default: demo-line)"),
            arg("--seed", type=int, default=0, help="which pictures arrive (default: 0)"),
            arg("--train-base", default=None, metavar="FOLDER", help="train the demo's models again, into it"),
        ),
    ),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; on SIGTERM it raises SystemExit with status 143."""
    chosen = vars(_parser().parse_args(argv))
    # Threads of torch's spin while they wait for each other: where others use the processors too, or a pod has a share
    # of them, a step of training takes up to a hundred times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # They warn of processors and adapters that nothing here uses, the one as soon as it is imported.
    for library in ("TRANSFORMERS", "DIFFUSERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    # torchao of its own kernels, and torch of torchao's types: as soon as they are imported, too.
    for logger in ("torchao", "torch.utils._pytree"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    name = chosen.pop("command")
    command = next(c for c in COMMANDS if c.name == name)
    try:
        with stopping(f"retain {name}"):
            return _run(command, chosen)
    except KeyboardInterrupt as error:
        _say(name, f"interrupted; {_how_to_go_on(error)}")
        return 130
    except SystemExit as error:
        if error.code == EXIT_TERMINATED:
            _say(name, f"ended before it was done; {_how_to_go_on(error)}")
        raise


def _run(command: Command, chosen: Mapping[str, Any]) -> int:
    """Run a command; whatever it raises is said in one sentence on stderr."""
    as_json = chosen.get("json", False)
    try:
        module, _, attribute = command.function.partition(":")
        function: Callable[..., object] = getattr(import_module(module), attribute)
        _print(function(**chosen), as_json)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        if asked_to_stop():
            raise
        known = told(error, command.name, *(Path(chosen[key]) for key in ("dir", "workspace") if chosen.get(key)))
        if isinstance(known, FaultsFound):
            _print(known.result, as_json)
        _say(command.name, "; ".join([str(known), *(() if known is error else how_to_go_on(error))]))
        return known.exit_code
    return 0


def _how_to_go_on(error: BaseException) -> str:
    return "; ".join(how_to_go_on(error)) or "the same command begins again, or goes on where it was"


def _say(name: str, words: str) -> None:
    print(f"retain {name}: {printable(words)}", file=sys.stderr, flush=True)


def _print(result: object, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, indent=1, sort_keys=True))
    elif isinstance(result, str):
        # Whatever a command quotes: a terminal obeys escapes, and people are fooled by text that turns its direction.
        print("\n".join(map(printable, result.split("\n"))))


class _Version(argparse.Action):
    """As argparse's own, but the version is looked up only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        print(f"retain {version()}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retain", description="Keep a generative image model current without letting it forget."
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        dest=argparse.SUPPRESS,
        default=argparse.SUPPRESS,
        help="which Retain this is, and nothing else",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        sub = commands.add_parser(command.name, help=command.summary, description=command.summary)
        for argument in command.arguments:
            sub.add_argument(*argument.names, **argument.options)
    return parser


if __name__ == "__main__":
    sys.exit(main())
