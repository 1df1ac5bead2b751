"""Builds the images of docker/ with the Docker that is at hand, and tries them: `scripts/images.py --major 15 17`.

In: majors of PostgreSQL. Out: a line for each thing that was tried; exit status 1 at the first that fails. A database
of each major is started beside an engine, asked over the network, stopped and started, and begun anew on its old
volume. Containers, networks and volumes are removed at the end; images stay, under the names that docker/compose.yaml
gives them.

The base is Debian's image. Where no registry can be reached, debootstrap makes one from apt's mirror, which needs root.
A daemon without its bridge (`--bridge=none --iptables=false`) will do: builds then use the machine's network.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from roots import Failed, Root, Unreachable, check

CHECKOUT = Path(__file__).parents[1]
# The Debian that has each PostgreSQL; on the last, others come from PGDG.
RELEASES = {15: "12", 17: "13"}
SUITES = {"12": "bookworm", "13": "trixie"}
ENGINE_RELEASE = "12"  # for whose Python the locks of vLLM for CPUs hold
DATABASE_STARTS_S = 120.0
ENGINE_STARTS_S = 900.0

ASK = """SELECT t, length(llm.complete('What is {t}?', v)) > 0 FROM (VALUES ('tea'), ('rain')) AS v (t) ORDER BY t"""


def release_of(major: int) -> str:
    """The Debian on which a database of this major is built."""
    return RELEASES.get(major, max(RELEASES.values(), key=int))


def docker(*words: str, stdin: str | None = None, also: Sequence[int] = ()) -> str:
    """Run docker and return what it printed, stderr included.

    Raises:
        Failed: Its exit status was not 0, nor one of `also`.
    """
    environment = os.environ | ({} if _has_buildx() else {"DOCKER_BUILDKIT": "0"})
    outcome = subprocess.run(
        ["docker", *words], input=stdin, capture_output=True, text=True, check=False, env=environment
    )
    if outcome.returncode not in {0, *also}:
        raise Failed(f"docker {' '.join(words[:2])}: {(outcome.stdout + outcome.stderr)[-3000:]}")
    return (outcome.stdout + outcome.stderr).strip()


def _has_buildx() -> bool:
    return subprocess.run(["docker", "buildx", "version"], capture_output=True, check=False).returncode == 0


def say(line: str) -> None:
    """Print a line of progress."""
    print(f"[images] {line}", flush=True)


def base_image(release: str, wheels: Path | None) -> str:
    """Return the name of an image of that Debian: the registry's, else one made here.

    Args:
        release: `12`, `13`.
        wheels: A folder for pip, which the image is to have at the same path; then it is made here.
    """
    official, own = f"debian:{release}-slim", f"pg_bridge-base:{release}{'-wheels' if wheels else ''}"
    for name in (own, official):
        if docker("image", "ls", "--quiet", name) and not (wheels and name == official):
            return name
    if not wheels:
        with contextlib.suppress(Failed):
            docker("pull", "--quiet", official)
            return official
    check()
    with Root(SUITES[release]) as root:
        if wheels:
            shutil.copytree(wheels, root.folder / str(wheels).lstrip("/"), dirs_exist_ok=True)
        packed = subprocess.Popen(["tar", "-C", root.folder, "-c", "."], stdout=subprocess.PIPE)
        with packed:
            command = ["docker", "import", "--change", 'CMD ["bash"]', "-", own]
            subprocess.run(command, stdin=packed.stdout, stdout=subprocess.DEVNULL, check=True)
    say(f"{own} was made by debootstrap")
    return own


def build(target: str, tag: str, base: str, *arguments: str) -> None:
    """Build an image of docker/Dockerfile."""
    began = time.monotonic()
    has_bridge = "bridge" in docker("network", "ls", "--format", "{{.Name}}").split()
    words = ["build", *([] if has_bridge else ["--network", "host"]), "--target", target, "--tag", tag]
    words += [word for argument in (f"BASE={base}", *arguments) for word in ("--build-arg", argument)]
    docker(*words, "--file", str(CHECKOUT / "docker/Dockerfile"), str(CHECKOUT))
    size = int(docker("image", "inspect", "--format", "{{.Size}}", tag))
    say(f"{tag}: built on {base} in {time.monotonic() - began:.0f} s, {size / 1e6:.0f} MB")


def wait_for_health(container: str, limit_s: float) -> float:
    """Wait until Docker calls a container healthy; return after how many seconds.

    Raises:
        Failed: It ended, or took too long.
    """
    began = time.monotonic()
    while time.monotonic() - began < limit_s:
        state = json.loads(docker("inspect", "--format", "{{json .State}}", container))
        if state["Health"]["Status"] == "healthy":
            return time.monotonic() - began
        if not state["Running"]:
            break
        time.sleep(0.5)
    raise Failed(f"{container} is not healthy after {limit_s:.0f} s: {docker('logs', container)[-2000:]}")


class Trial:
    """Containers of one database and one engine, on a network of their own.

    Args:
        database: The database's image.
        engine: The engine's; None has the database's image run the engine double.
    """

    def __init__(self, database: str, engine: str | None) -> None:
        self._image = database
        self._engine = engine
        self._name = f"pg_bridge-trial-{os.getpid()}"
        self._password = secrets.token_urlsafe(12)

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """What the containers need, and the engine; all is removed at the end."""
        docker("network", "create", self._name)
        docker("volume", "create", self._name)
        try:
            self._start_engine()
            yield
        finally:
            for part in ("database", "engine"):
                docker("rm", "--force", "--volumes", f"{self._name}-{part}", also=[1])
            docker("volume", "rm", self._name, also=[1])
            docker("network", "rm", self._name, also=[1])

    def run(self) -> None:
        """Try all.

        Raises:
            Failed: Something is not as it must be.
        """
        self._start_database(self._password)
        self._look_at_the_first_start()
        self._look_at_analyst()
        self._sql("CREATE TABLE kept AS SELECT 42 AS i", user="analyst")
        docker("stop", f"{self._name}-database")
        expect("a stop is a clean shutdown", "database system is shut down" in self._log())
        docker("start", f"{self._name}-database")
        wait_for_health(f"{self._name}-database", DATABASE_STARTS_S)
        expect("data outlive stop and start", self._sql("TABLE kept") == "42")
        docker("rm", "--force", f"{self._name}-database")
        self._start_database("")
        expect("data outlive the container", self._sql("TABLE kept") == "42")
        expect("so does the password", self._sql("SELECT 1", user="analyst") == "1")

    def _look_at_the_first_start(self) -> None:
        expect("nobody is root in there", self._exec("id", "-u") != "0")
        leftovers = self._exec("bash", "-c", "ls /usr/bin | grep -cE '^(gcc|make)' || true")
        expect("there is no compiler", leftovers == "0")
        expect("the module is preloaded", self._sql("SHOW session_preload_libraries") == "pg_bridge")
        expect("a plain SELECT is answered", self._sql(ASK) == "rain|t\ntea|t")
        plan = self._sql(f"EXPLAIN (COSTS OFF) {ASK}")
        expect("its calls are gathered", "Custom Scan" in plan)
        self._exec("pg-bridge", "doctor", "--dsn", "dbname=llm")
        expect("the doctor finds nothing wrong", True)
        if self._engine:
            said = self._exec("psql", "llm", "-f", "demo.sql")
            say("the demo:\n" + said)

    def _look_at_analyst(self) -> None:
        asked = self._sql(ASK, user="analyst")
        expect("analyst asks over the network", asked == "rain|t\ntea|t")
        refused = self._sql("CREATE SERVER s FOREIGN DATA WRAPPER pg_bridge", user="analyst", fails=True)
        expect("analyst makes no server", "permission denied" in refused)
        refused = self._sql("SELECT 1", user="analyst", password="wrong", fails=True)  # noqa: S106
        expect("a wrong password is refused", "authentication failed" in refused)
        refused = self._sql("SELECT 1", user="postgres", fails=True)
        expect("the superuser does not come in over the network", "no pg_hba.conf entry" in refused)
        expect("the password stands in no log", self._password not in self._log())
        environment = self._exec("bash", "-c", "tr '\\0' '\\n' </proc/1/environ")
        expect("nor in the server's environment", "ANALYST_PASSWORD" not in environment)

    def _start_engine(self) -> None:
        words = ["run", "--detach", "--init", "--name", f"{self._name}-engine", "--network", self._name]
        words += ["--shm-size", "1g"]
        if self._engine:
            docker(*words, self._engine)
            took = wait_for_health(f"{self._name}-engine", ENGINE_STARTS_S)
            say(f"the engine is healthy after {took:.0f} s")
        else:
            double = ["-m", "pg_bridge.testing.double", "--host", "0.0.0.0", "--port", "8000"]  # noqa: S104
            docker(*words, "--no-healthcheck", "--entrypoint", "python3", self._image, *double)

    def _start_database(self, password: str) -> None:
        words = ["run", "--detach", "--name", f"{self._name}-database", "--network", self._name]
        words += ["--volume", f"{self._name}:/var/lib/postgresql/data", "--env", f"ANALYST_PASSWORD={password}"]
        docker(*words, "--env", f"ENGINE=http://{self._address('engine')}:8000", self._image)
        took = wait_for_health(f"{self._name}-database", DATABASE_STARTS_S)
        say(f"the database is healthy after {took:.0f} s")

    def _exec(self, *words: str) -> str:
        return docker("exec", f"{self._name}-database", *words)

    def _sql(self, statement: str, *, user: str = "", password: str | None = None, fails: bool = False) -> str:
        """What psql prints: as the superuser from inside, or as somebody over the network."""
        login = ["-h", self._address("database"), "-U", user] if user else []
        secret = f"PGPASSWORD={self._password if password is None else password}"
        words = ["exec", "--env", secret, f"{self._name}-database", "psql", "-XAtq", *login, "-c", statement, "llm"]
        return docker(*words, also=[1, 2] if fails else [])

    def _address(self, part: str) -> str:
        """By number: names in a network want a daemon that may use iptables."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return docker("inspect", "--format", form, f"{self._name}-{part}")

    def _log(self) -> str:
        return docker("logs", f"{self._name}-database")


def expect(what: str, holds: bool) -> None:
    """Say what holds.

    Raises:
        Failed: It does not.
    """
    if not holds:
        raise Failed(f"not so: {what}")
    say(f"  {what}")


def main(argv: Sequence[str] | None = None) -> int:
    """Build and try."""
    parser = argparse.ArgumentParser(description="Build the images of docker/ and try them.")
    parser.add_argument("--major", type=int, nargs="+", default=sorted(RELEASES), help="(default: %(default)s)")
    parser.add_argument(
        "--engine",
        choices=("double", "vllm"),
        default="double",
        help="what answers: the engine double, or vLLM with the model in the box, whose image takes some minutes and "
        "some GB (default: %(default)s)",
    )
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that pip on this machine is configured to use")
    arguments = parser.parse_args(argv)
    try:
        if shutil.which("docker") is None:
            raise Unreachable("there is no docker on this machine")
        docker("info")
        engine = None
        if arguments.engine == "vllm":
            engine = "pg_bridge-engine"
            build("engine", engine, base_image(ENGINE_RELEASE, arguments.wheels))
        for major in arguments.major:
            image = f"pg_bridge-database:{major}"
            build("database", image, base_image(release_of(major), None), f"MAJOR={major}")
            trial = Trial(image, engine)
            with trial.network():
                trial.run()
    except (Failed, Unreachable) as error:
        print(f"[images] failed: {error}", file=sys.stderr)
        return 1
    say("all of it was tried")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
