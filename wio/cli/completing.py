"""``wio completion``: what bash, zsh and fish need to complete commands, options, workspaces, people and paths.

A script asks this program, through typer's own protocol, what may come next; ``ready`` gives the arguments their completers.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final

import typer

from wio.cli import output
from wio.cli.output import Json

ASKED: Final = "_WIO_COMPLETE"
"""Set by the scripts: this run is to complete, not to do anything."""

BASH: Final = """\
_wio() {
    local IFS=$'\\n'
    COMPREPLY=( $(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _WIO_COMPLETE=complete_bash "$1" 2>/dev/null) )
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == */ ]] && compopt -o nospace
    [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == */* ]] && compopt -o filenames
    return 0
}
complete -o default -F _wio wio
"""
ZSH: Final = """\
#compdef wio
_wio() {
    local -a found folders others
    found=("${(@f)$(env _WIO_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \\
        _TYPER_COMPLETE_ARGS="${(j: :)words[1,$CURRENT]}" wio 2>/dev/null)}")
    found=("${(@)found%%$'\\t'*}")
    folders=("${(@M)found:#*/}")
    others=("${(@)found:#(*/|)}")
    (( ${#folders[1]} )) && compadd -S '' -- "${folders[@]}"
    (( ${#others[1]} )) && compadd -- "${others[@]}"
    (( ${#found[1]} )) || _files
}
(( $+functions[compdef] )) && compdef _wio wio
"""
FISH: Final = """\
complete --command wio --no-files --arguments "(env _WIO_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args \
_TYPER_COMPLETE_ARGS=(commandline -cp) wio 2>/dev/null)" --condition "env _WIO_COMPLETE=complete_fish \
_TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) wio 2>/dev/null"
"""


class Shell(enum.StrEnum):
    """Shells that are served."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


_SCRIPTS: Final = {Shell.BASH: BASH, Shell.ZSH: ZSH, Shell.FISH: FISH}


def add_to(app: typer.Typer) -> None:
    """Register the command."""

    @app.command(rich_help_panel="You")
    def completion(shell: Annotated[Shell, typer.Argument(help="The shell it is for.")], *, json: Json = False) -> None:
        """Print what a shell has to read so that it completes commands, workspaces and paths.

        For good: wio completion bash > ~/.local/share/bash-completion/completions/wio
        """
        script = _SCRIPTS[shell]
        output.value({"shell": shell.value, "script": script}) if json else output.line(script.rstrip("\n"))


def ready(app: typer.Typer) -> Any:
    """Return the program with a completer for each argument whose name says what it is. Only for a run that is to complete."""
    from typer._completion_classes import completion_init  # noqa: PLC0415 - what add_completion would call

    from wio import completion as offered  # noqa: PLC0415 - brings httpx, which no other run needs so early

    completers: Mapping[str, Callable[[str], list[str]]] = {
        "path": offered.paths,
        "paths": offered.paths,
        "sources": offered.paths,
        "arguments": offered.paths,
        "what": offered.paths,
        "workspace": offered.workspaces,
        "who": offered.subjects,
        "to": offered.people,
        "user": offered.people,
        "node": offered.nodes,
        "nodes": offered.nodes,
        "address": offered.roots,
        "root": offered.roots,
    }
    named: Mapping[str, Callable[[str], list[str]]] = {
        "workspace": offered.workspaces,
        "w": offered.workspaces,
        "group": offered.groups,
        "node": offered.nodes,
    }
    completion_init()
    whole: Any = typer.main.get_command(app)
    for group, command in _commands(whole, ""):
        for parameter in command.params:
            completer = named.get(group) if parameter.name == "name" else completers.get(parameter.name)
            if completer is not None:
                parameter._custom_shell_complete = functools.partial(_answer, completer)  # noqa: SLF001 - typer's own place
    return whole


def _answer(completer: Callable[[str], list[str]], _ctx: object, _parameter: object, incomplete: str) -> list[str]:
    return completer(incomplete)


def _commands(command: Any, group: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield group, command
        return
    for name, one in inner.items():
        yield from _commands(one, name if getattr(one, "commands", None) is not None else group)
