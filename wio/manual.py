"""Manual pages from a tree of commands: names, arguments, options and help as the commands have them, in troff's man macros.

Pure: a command tree and examples in, text out. Serves every command line here; each gives its own examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

EXIT_CODES: Final = (
    ("0", "done"),
    ("1", "refused or failed"),
    ("2", "wrong use"),
    ("3", "not found"),
    ("4", "not allowed"),
    ("5", "hub or node unreachable"),
    ("6", "pending: accepted, not yet enforced"),
    ("130", "interrupted"),
)
VARIABLES: Final = (
    ("WIO_HUB", "the hub to use, instead of the one of the last sign-in"),
    ("WIO_TOKEN", "the token to use, instead of the stored one"),
    ("WIO_CONFIG", "the directory for settings, keys and known nodes"),
    ("WIO_PASSWORD", "the password for wio register and wio login"),
    ("WIO_MC", "the mc program"),
    ("WIO_DEBUG", "1 shows where a fault of wio's own happened"),
    ("NO_COLOR", "set to anything: no colour on a terminal"),
    ("COLUMNS", "the width of tables and help on a terminal"),
)
EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "register": ("wio register alice@lab.example alice --hub https://hub.lab.example",),
    "login": ("wio login --hub https://hub.lab.example",),
    "logout": ("wio logout",),
    "whoami": ("wio whoami --json",),
    "doctor": ("wio doctor", "wio doctor lab3 --json"),
    "man": ("wio man share | man -l -", "wio man --to ~/.local/share/man/man1"),
    "completion": ('eval "$(wio completion bash)"',),
    "create": ("wio create scans --root lab3/homes",),
    "ls": ("wio ls", "wio ls scans/sub-014/"),
    "workspace create": ("wio workspace create old --root lab3/data --folder archive/2019/",),
    "workspace ls": ("wio w ls --public",),
    "workspace show": ("wio w show alice/scans",),
    "workspace describe": ("wio w describe scans 'MR scans of 2026'",),
    "workspace rename": ("wio w rename scans mri",),
    "workspace archive": ("wio w archive scans",),
    "workspace unarchive": ("wio w unarchive scans",),
    "workspace handover": ("wio w handover scans bob --keep read",),
    "workspace rm": ("wio w rm scans --delete-data",),
    "share": ("wio share scans bob --write --until 2027-01-01", "wio share scans @mri", "wio share scans public"),
    "unshare": ("wio unshare scans bob",),
    "shares": ("wio shares scans",),
    "request": ("wio request alice/scans --write --message 'for the review'",),
    "requests": ("wio requests",),
    "answer": ("wio answer 4711 yes --until 30d",),
    "why": ("wio why bob alice/scans/sub-014/T1w.nii",),
    "access": ("wio access scans --at 2026-03-01",),
    "accesses": ("wio accesses scans/sub-014/ --who bob",),
    "audit": ("wio audit --workspace scans --jsonl",),
    "group create": ("wio group create @mri --description 'the MR group'",),
    "group ls": ("wio group ls",),
    "group show": ("wio group show @mri",),
    "group add": ("wio group add @mri bob --manager",),
    "group remove": ("wio group remove @mri bob",),
    "group rm": ("wio group rm @mri",),
    "find": ("wio find 'ext:nii size>1G modified:<2024' --facets",),
    "file": ("wio file scans/a.dcm",),
    "watch": ("wio watch scans/", "wio watch 'ext:nii owner:bob' --json"),
    "get": ("wio get alice/scans/sub-014/ ./sub-014 --resume",),
    "put": ("wio put results.csv plots scans/results/",),
    "mc": ("wio mc ls scans", "wio mc cp -r ./results/ scans/results/", "wio mc mirror alice/scans/ nas/copy/"),
    "presign": ("wio presign scans/sub-014/T1w.nii --expires 1d",),
    "vouch": ("wio vouch lab3 --ttl 7d",),
    "node invite": ("wio node invite lab3",),
    "node ls": ("wio node ls",),
    "node show": ("wio node show lab3",),
    "node verify": ("wio node verify lab3/homes",),
    "node unreadable": ("wio node unreadable lab3/homes",),
    "node trust": ("wio node trust lab3 --fingerprint abcd-efgh-ijkl-mnop",),
    "node confirm": ("wio node confirm lab3",),
    "node evict": ("wio node evict lab3",),
    "root create": ("wio root create lab3/homes --bucket homes --kind private",),
    "root ls": ("wio root ls",),
    "root show": ("wio root show lab3/homes",),
    "root survey": ("wio root survey lab3/data",),
    "root scan": ("wio root scan lab3/data",),
    "root set": ("wio root set lab3/homes --pace 500 --quiet 08:00-18:00",),
    "root retire": ("wio root retire lab3/old",),
    "quota ls": ("wio quota ls",),
    "quota set": ("wio quota set user alice --hard 1T --soft 900G",),
    "quota rm": ("wio quota rm user alice",),
}
_STYLE: Final = re.compile(r"\[/?[a-z ]+\]")


class Page(msgspec.Struct, frozen=True):
    """One manual page: ``name`` as the file is called, without ``.1``."""

    name: str
    about: str
    roff: str


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk over all commands and groups, hidden short forms left out."""
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield (*before, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))


def pages(root: Any, program: str, examples: Mapping[str, tuple[str, ...]]) -> Iterator[Page]:
    """Make a page for the program and one for each command."""
    below = list(commands(root))
    yield _page(program, (), root, examples, [words for words, _ in below if len(words) == 1])
    for words, command in below:
        inner = [other for other, _ in below if other[:-1] == words]
        yield _page(program, words, command, examples, inner)


def _page(  # noqa: C901 - one page, written from top to bottom
    program: str, words: tuple[str, ...], command: Any, examples: Mapping[str, tuple[str, ...]], inner: list[tuple[str, ...]]
) -> Page:
    name, called = "-".join((program, *words)), " ".join((program, *words))
    help_ = [line.strip() for line in (command.help or "").split("\n\n") if line.strip()]
    about = " ".join(help_[0].split()).rstrip(".") if help_ else called
    given = [one for one in command.params if getattr(one, "param_type_name", "") == "argument"]
    options = [one for one in command.params if getattr(one, "param_type_name", "") == "option" and not one.hidden]
    usage = [f".B {_text(called)}", *("[\\fIoption\\fR …]" for _ in options[:1])]
    usage += [_text(_metavar(one)) for one in given] or ([r"\fIcommand\fR …"] if inner else [])
    lines = [
        f'.TH "{name.upper()}" "1" "" "{program}" "{program}"',
        ".SH NAME",
        f"{_text(name)} \\- {_text(about)}",
        ".SH SYNOPSIS",
        *usage,
        ".SH DESCRIPTION",
        *(line for part in help_ for line in (_text(" ".join(part.split())), ".PP")),
    ]
    if given:
        lines += [".SH ARGUMENTS"]
        for one in given:
            lines += [".TP", f"\\fI{_text(_metavar(one))}\\fR", _text(one.help or "")]
    if options:
        lines += [".SH OPTIONS"]
        for one in options:
            takes = "" if getattr(one, "is_flag", False) else f" \\fI{_text(one.metavar or 'VALUE')}\\fR"
            names = ", ".join(f"\\fB{_text(opt)}\\fR" for opt in one.opts)
            lines += [".TP", names + takes, _text(one.help or "")]
    if inner:
        lines += [".SH COMMANDS"]
        for other in inner:
            lines += [".PP", f"\\fB{_text('-'.join((program, *other)))}\\fR(1)"]
    if examples.get(" ".join(words)):
        lines += [".SH EXAMPLES", ".nf", *(_text(line) for line in examples[" ".join(words)]), ".fi"]
    lines += [".SH EXIT STATUS"]
    for code, means in EXIT_CODES:
        lines += [".TP", f"\\fB{code}\\fR", means]
    if not words:
        lines += [".SH ENVIRONMENT"]
        for variable, means in VARIABLES:
            lines += [".TP", f"\\fB{variable}\\fR", _text(means)]
    above = "-".join((program, *words[:-1]))
    lines += [".SH SEE ALSO", f"\\fB{_text(above)}\\fR(1)" if words else f"{program} man COMMAND"]
    return Page(name, about, "\n".join(lines) + "\n")


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper() + ("…" if argument.nargs == -1 else ""))


def _text(text: str) -> str:
    """Return text as troff takes it: nothing in it is a request or an escape."""
    text = _STYLE.sub("", text).replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    return "\\&" + text if text.startswith((".", "\\(aq")) else text
