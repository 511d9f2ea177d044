"""The main job, shown on real servers: `make demo`.

Starts a hub and a MinIO with files in it, lets people do what wio is for, and narrates each step with the command a
person would type and its real answer. Ends with a table of what it measured. ``--keep`` leaves everything running.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deploy.federation import BIN, Agent, Federation, Person
from deploy.programs import ProgramMissing, provide
from deploy.running import Minio, NotStarted, until

FILES_AT_MOST: Final = 4000
REFUSED: Final = 403
"""What S3 answers to a key that may not."""

out = Console(highlight=False, width=max(Console().width, 100))


class Figures:
    """What the demo measured, for the table at its end."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, str]] = []

    def add(self, what: str, figure: str) -> None:
        """Note one."""
        self.rows.append((what, figure))

    def show(self) -> None:
        """Print the table."""
        table = Table(title="measured just now, on this machine", title_justify="left", show_header=False)
        for what, figure in self.rows:
            table.add_row(what, figure)
        out.print(table)


def heading(text: str) -> None:
    """Begin a chapter."""
    out.print()
    out.rule(f"[bold]{text}", align="left", style="cyan")


def say(text: str) -> None:
    """Explain, in a line or two."""
    out.print(f"[dim]{text}[/dim]")


def typed(who: str, *words: str | Path) -> None:
    """Show the command as a person would type it."""
    line = " ".join(shlex.quote(str(word)) for word in words)
    out.print(f"[green]{who}$[/green] [bold]{escape(line)}[/bold]", soft_wrap=True)


def answer(text: str, *, lines: int = 30) -> None:
    """Show what a command said."""
    shown = text.rstrip("\n").split("\n")
    for line in shown[:lines]:
        out.print(escape(line), soft_wrap=True)
    if len(shown) > lines:
        out.print(f"[dim]… {len(shown) - lines} more lines[/dim]")


def wio(person: Person, *words: str | Path, quiet: bool = False, may_fail: bool = False) -> Any:
    """Run and show a `wio` command; return what it said."""
    typed(person.username, "wio", *words)
    said = person.wio(*words)
    if not may_fail:
        said.good()
    if not quiet:
        answer(said.out + (said.err if said.code else ""))
    return said


def wio_live(person: Person, *words: str | Path) -> None:
    """Run a `wio` command on this terminal, for the ones that show progress."""
    typed(person.username, "wio", *words)
    out.file.flush()
    subprocess.run([BIN / "wio", *words], env=os.environ | person.environment, check=True)


# ---------------------------------------------------------------------------------------------------- the data


def some_real_files(into: Path) -> int:
    """Copy a few thousand real files: Python's own library and this project. Returns how many."""
    project = Path(__file__).resolve().parent.parent
    sources = {"python": Path(sysconfig.get_paths()["stdlib"]), "wio-source": project}
    unwanted = {"__pycache__", "site-packages", ".git", ".venv", "node_modules", ".hypothesis", ".mypy_cache", ".ruff_cache"}
    count = 0
    for name, source in sources.items():
        for folder, folders, files in os.walk(source):
            folders[:] = sorted(set(folders) - unwanted)
            for file in sorted(files):
                path = Path(folder) / file
                if count >= FILES_AT_MOST or path.is_symlink() or not path.is_file():
                    continue
                target = into / name / path.relative_to(source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
                count += 1
    return count


def owner_mc(server: Minio, *words: str | Path) -> None:
    """Run mc as the server's owner, as somebody did long before wio came."""
    environment = os.environ | {"MC_HOST_owner": f"http://{server.user}:{server.password}@{server.host}"}
    subprocess.run([provide("mc"), "--quiet", *words], env=environment, check=True, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------------------------------------------- the story


class Story:
    """The steps, in order, and what they hand to each other."""

    def __init__(self, federation: Federation, figures: Figures) -> None:
        self.federation = federation
        self.figures = figures
        self.alice: Person
        self.bob: Person
        self.agent: Agent
        self.server: Minio

    def data(self) -> None:
        """Show a storage server that was there before wio."""
        heading("A MinIO with files in it, as it has been there for years")
        self.server = self.federation.server("lab3")
        with tempfile.TemporaryDirectory() as scratch:
            count = some_real_files(Path(scratch))
            owner_mc(self.server, "mb", "owner/lab")
            owner_mc(self.server, "mirror", scratch, "owner/lab")
        say(f"{count} files in bucket lab of {self.server.url}: Python's own library, and this project.")

    def join(self) -> None:
        """Let an ordinary user add the node."""
        heading("alice adds her server")
        say(f"The hub runs with no configuration: wio-hub serve, at {self.federation.hub.url}")
        self.alice = Person(self.federation.hub.url, "alice", self.federation.folder / "person-alice")
        self.federation.people["alice"] = self.alice
        wio(self.alice, "register", self.alice.email, "alice")
        invited = wio(self.alice, "node", "invite", "lab3", "--json", quiet=True).json
        say("A join string works once, for ten minutes. It travels over standard input: arguments show in process lists.")
        agent = self.agent = self.federation.agents["lab3"] = Agent("lab3", self.federation.folder / "agent-lab3")
        typed("alice", "wio-agent", "join", "-", "--s3", self.server.url, "--admin-env")
        started = time.perf_counter()
        joined = agent.ask(
            "join", "-", "--s3", self.server.url, "--admin-env", environment=self.server.keys, stdin=invited["join_string"]
        ).good()
        answer(joined.out + joined.err, lines=60)
        typed("alice", "wio-agent", "run")
        agent.start()
        self.federation.wait_online("lab3", self.alice)
        self.figures.add("join string to node online", f"{time.perf_counter() - started:.1f} s")
        wio(self.alice, "node", "ls")

    def places(self) -> None:
        """Roots and workspaces, and the import of what is there."""
        heading("Roots, and what already lies there")
        say("A root is where wio manages everything. 'existing' takes the bucket as it lies; 'homes' is for new workspaces,")
        say("each a bucket of its own, as this server does not keep names apart inside one bucket.")
        wio(
            self.alice, "root", "create", "existing", "--node", "lab3", "--kind", "unmanaged-private", "--bucket", "lab",
            "--accept-visible-names",
        )  # fmt: skip
        wio(self.alice, "root", "create", "homes", "--node", "lab3", "--kind", "private", "--bucket", "homes")
        wio(self.alice, "create", "python", "--root", "lab3/existing", "--folder", "python/")
        wio(self.alice, "create", "source", "--root", "lab3/existing", "--folder", "wio-source/")
        started = time.perf_counter()
        wio_live(self.alice, "root", "scan", "lab3/existing")
        took = time.perf_counter() - started
        root = self.alice.wio("root", "show", "lab3/existing", "--json").good().json
        self.figures.add("import of the bucket until searchable", f"{root['objects']} objects, {took:.1f} s with the command")
        wio(self.alice, "create", "notes", "--root", "lab3/homes")
        wio(self.alice, "w", "ls")

    def use(self) -> None:
        """One's own files, with one's own tools."""
        heading("alice works with her files, with the tools she has")
        wio(self.alice, "ls", "python/json")
        wio(self.alice, "mc", "ls", "python/json/")
        note = self.federation.folder / "note.txt"
        note.write_text("sub-014 has to be scanned again.\n")
        wio(self.alice, "mc", "cp", str(note), "notes/2026/note.txt")
        wio(self.alice, "mc", "cat", "notes/2026/note.txt")
        started = time.perf_counter()
        until("the note found", lambda: bool(self.alice.wio("find", "note.txt", "in:notes", "--json").json["hits"]))
        self.figures.add("a new file found by search (most of it is the command starting)", f"{ms(started)} ms")
        typed("alice", "python")
        code = (
            "import wio\n"
            's3 = wio.boto3_client("python")          # asks for keys, and for new ones in time\n'
            'at = wio.locate("python/json/tool.py")   # which bucket, which key\n'
            'print(s3.get_object(Bucket=at.bucket, Key=at.key)["Body"].read(60))\n'
        )
        answer(code)
        said = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | self.alice.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        answer(said.stdout)

    def share(self) -> None:
        """Bring in a second person."""
        heading("alice shares a folder with bob")
        self.bob = self.federation.person("bob")
        say("Before: bob searches and finds nothing.")
        wio(self.bob, "find", "ext:py", "json")
        wio(self.alice, "share", "python", "bob")
        say("After: the same search. Nothing was indexed anew.")
        wio(self.bob, "find", "ext:py", "json", "--limit", "4", "--facets")
        wio(self.bob, "find", "note")
        say("(alice's note is not among bob's answers: her notes are not shared.)")

    def revoke(self) -> None:
        """Access taken back from a key and a link that are out."""
        heading("bob has a key and a link in his hands; alice takes the share back")
        import boto3  # noqa: PLC0415 - only here, and slow to load
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import ClientError  # noqa: PLC0415

        key = wio(self.bob, "creds", "alice/python", "--ttl", "1h", "--format", "json", quiet=True).json
        [one] = key["keys"]
        place = one["opens"][0]
        client = boto3.client(
            "s3",
            endpoint_url=one["endpoint"],
            region_name=one["region"],
            aws_access_key_id=one["access_key"],
            aws_secret_access_key=one["secret_key"],
            aws_session_token=one["session_token"],
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
        )
        file = place["prefix"] + "json/tool.py"
        size = len(client.get_object(Bucket=place["bucket"], Key=file)["Body"].read())
        out.print(f"bob's boto3 reads {place['bucket']}/{file}: {size} bytes")
        link = wio(self.bob, "presign", "alice/python/json/tool.py", "--expires", "30m", "--json", quiet=True).json["url"]
        out.print(f"bob's link, opened by anybody: HTTP {http_status(link)}")

        said = wio(self.alice, "unshare", "python", "bob")
        revoked_at = time.perf_counter()
        try:
            client.get_object(Bucket=place["bucket"], Key=file)
        except ClientError as error:
            refused = str(error.response["Error"]["Code"])
        else:
            raise AssertionError("bob's key still works")
        out.print(f"the same key, {ms(revoked_at)} ms after the command came back: [red]{refused}[/red]")
        status = http_status(link)
        out.print(f"the same link: [red]HTTP {status}[/red]")
        if status != REFUSED:
            raise AssertionError("bob's link still works")
        receipt = re.search(r"enforced on lab3 in (\d+) ms", said.out)
        if receipt is None:
            raise AssertionError("the receipt does not say that it is enforced")
        self.figures.add("unshare: asked to enforced on the node, and proven there", f"{receipt[1]} ms")
        wio(self.bob, "find", "ext:py", "json")
        wio(self.alice, "audit", "--limit", "6")

    def show(self) -> None:
        """All of it."""
        self.data()
        self.join()
        self.places()
        self.use()
        self.share()
        self.revoke()


def ms(started: float) -> int:
    """Return milliseconds since a moment of time.perf_counter."""
    return round((time.perf_counter() - started) * 1000)


def http_status(url: str) -> int:
    """Open a link and return the answer's status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as opened:  # noqa: S310 - a link of our own server on loopback
            return int(opened.status)
    except urllib.error.HTTPError as error:
        return error.code


def main() -> int:
    """Show the story; 1 where something went wrong, with what it was."""
    parser = argparse.ArgumentParser(description="Show the main job of wio on real servers.")
    parser.add_argument("--keep", action="store_true", help="leave everything running, and say how to look at it")
    parser.add_argument("--folder", type=Path, default=None, help="where everything is put; by default a new folder in /tmp")
    asked = parser.parse_args()
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="wio-demo-"))
    figures = Figures()
    federation = Federation(folder)
    started = time.perf_counter()
    try:
        federation.hub.start()
        Story(federation, figures).show()
    except (AssertionError, ProgramMissing, NotStarted, TimeoutError, subprocess.CalledProcessError) as error:
        out.print(f"\n[red]The demo stopped:[/red] {escape(str(error))}")
        out.print(f"Logs and data are in {folder}.")
        federation.stop()
        return 1
    heading("Figures")
    figures.add("the whole demo", f"{time.perf_counter() - started:.0f} s")
    figures.show()
    if asked.keep:
        keep(federation)
    else:
        federation.stop()
        shutil.rmtree(folder)
        say("Everything was stopped and removed. To keep it running and look around: make demo KEEP=1")
    return 0


def keep(federation: Federation) -> None:
    """Say how to look around, and how to end it."""
    heading("Still running")
    out.print(f"Be alice:  export WIO_CONFIG={federation.folder}/person-alice WIO_HUB={federation.hub.url}; wio w ls")
    out.print(f"Be bob:    export WIO_CONFIG={federation.folder}/person-bob WIO_HUB={federation.hub.url}; wio w ls --shared")
    out.print(f"The node:  export WIO_AGENT_STATE={federation.folder}/agent-lab3; wio-agent grants")
    programs = (*federation.agents.values(), *federation.servers.values(), federation.hub)
    out.print(f"End it:    kill {' '.join(str(program.pid) for program in programs)}; rm -r {federation.folder}")


if __name__ == "__main__":
    sys.exit(main())
