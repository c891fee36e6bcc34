"""What can be held of the images and of docker-compose.yml where no engine runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.config import load_config

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PACKAGES = ("floodwall", "broker", "schemas", "detectors", "engine", "streams", "replay", "edge", "drills")
WORKERS = ("observer", "judge")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = COMPOSE["services"]
    return found


def test_every_part_of_the_deployment_is_there() -> None:
    assert set(services()) == {"kafka", "topics", *WORKERS, "nft-edge"}
    assert [name for name, service in services().items() if service.get("profiles")] == ["nft-edge"]


def test_it_says_that_it_is_for_development() -> None:
    assert (ROOT / "docker-compose.yml").read_text().startswith("# DEVELOPMENT")
    for name in ("kafka.toml", "edge.toml"):
        assert load_config(ROOT / "deploy" / name).kafka.development


@pytest.mark.parametrize("name", sorted(services()))
def test_images_are_pinned_or_built_here(name: str) -> None:
    service = services()[name]
    if "build" in service:
        assert service["image"].endswith(":local")
        assert service["build"]["target"] in re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE)
    else:
        assert re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+", service["image"])


def test_what_has_to_be_healthy_or_done_before_another_starts() -> None:
    assert services()["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert services()["topics"]["restart"] == "no"
    for name in (*WORKERS, "nft-edge"):
        assert services()[name]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
        assert services()[name]["restart"] == "unless-stopped"
    for name in ("kafka", *WORKERS):
        assert services()[name]["healthcheck"]["test"][0] == "CMD"


def test_the_health_check_asks_the_port_that_the_worker_is_given() -> None:
    for name in WORKERS:
        words = services()[name]["command"]
        port = words[words.index("--health-port") + 1]
        assert f"http://127.0.0.1:{port}/health" in services()[name]["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", ["topics", *WORKERS, "nft-edge"])
def test_containers_have_no_rights_that_they_do_not_need(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("cap_add", []) == (["NET_ADMIN"] if name == "nft-edge" else [])
    assert service.get("user") == ("0:0" if name == "nft-edge" else None)
    assert "privileged" not in service


def test_nothing_listens_beyond_this_host() -> None:
    for service in services().values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_mounted_files_exist_and_volumes_are_declared() -> None:
    for service in services().values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]


def test_the_brokers_of_the_configurations_are_what_kafka_advertises() -> None:
    advertised = services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    addresses = re.findall(r"://([^,]+)", advertised)
    assert list(load_config(ROOT / "deploy" / "kafka.toml").kafka.brokers) == addresses[:1]
    assert list(load_config(ROOT / "deploy" / "edge.toml").kafka.brokers) == addresses[1:]


def test_the_image_of_the_workers_is_not_root_and_installs_from_a_lock_with_hashes() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert "--require-hashes" in stages[1]
    worker = next(stage for stage in stages if " AS worker" in stage)
    assert re.findall(r"^USER (\S+)$", worker, re.MULTILINE) == ["10001:10001"]
    assert stages[-1].strip() == "worker"
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-slim-\w+$", DOCKERFILE, re.MULTILINE)
    assert "://" not in DOCKERFILE
    assert "latest" not in DOCKERFILE


def test_every_package_of_ours_is_in_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for package in PACKAGES:
        assert f"COPY {package} /opt/floodwall/source/{package}" in DOCKERFILE
        assert f"!{package}" in ignored


def test_the_lock_of_the_image_agrees_with_the_other() -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", path.read_text(), re.MULTILINE))

    image, whole = pins(ROOT / "deploy" / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert image.items() <= whole.items()
    assert {"faust-streaming", "confluent-kafka", "numba"} <= image.keys()
    assert not {"pytest", "mypy", "ruff"} & image.keys()
