"""The files in `deploy/`: whatever they name exists here. No container is run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer
import yaml
from sqlalchemy import make_url

from api.cli.main import app
from api.http.app import create_app
from api.http.draining import GRACE_SECONDS
from api.service.service import Service
from api.service.settings import Settings, load_settings
from library.base.packaged import MODEL_PACKAGES

FOLDER = tiny.ROOT / "deploy"
IMAGE = (FOLDER / "Containerfile").read_text()
COMPOSE = (FOLDER / "compose.yaml").read_text()
PROMETHEUS = (FOLDER / "prometheus.yaml").read_text()
KUBERNETES = (FOLDER / "kubernetes.yaml").read_text()
TEXTS = (IMAGE, COMPOSE, PROMETHEUS, KUBERNETES)
REPLICAS = ("lorasmith", "second")
VOLUME = "/var/lib/lorasmith"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Paths that may be asked with GET."""
    service = Service(Settings(data=tmp_path_factory.mktemp("data")))
    documented = create_app(service).openapi()["paths"]
    return {path for path, methods in documented.items() if "get" in methods}


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = (one for one in yaml.safe_load_all(KUBERNETES) if one["kind"] == kind)
    return found


def environment(text: str) -> dict[str, str]:
    """What the image sets."""
    return dict(re.findall(r"([A-Z_]+)=(\S+)", text))


def test_variables_are_settings_and_have_values_that_these_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compose = yaml.safe_load(COMPOSE)["services"]["lorasmith"]["environment"]
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    pod = {variable["name"]: variable["value"] for variable in container["env"]}
    named = {name for text in TEXTS for name in re.findall(r"LORASMITH_[A-Z_]+", text)}
    settings = {f"LORASMITH_{name.upper()}" for name in Settings.model_fields}
    own = {name for name in compose if name.startswith("LORASMITH_")}
    assert named - {"LORASMITH_CACHE"} <= settings and {*own, *pod} <= named
    (tmp_path / "lorasmith.toml").write_text(of_kind("ConfigMap")["data"]["lorasmith.toml"])
    for name, value in {**environment(IMAGE), **compose}.items():
        if name.startswith("LORASMITH_"):
            monkeypatch.setenv(name, value)
    found = load_settings(config=tmp_path / "lorasmith.toml")
    assert (found.host, found.log_format, found.ttl) == ("0.0.0.0", "json", 30 * 24 * 3600)


def test_commands_exist() -> None:
    group: Any = typer.main.get_command(app)
    words = r"lorasmith (keys|restore|backup|serve)(?: ([a-z-]+))?(.*)"
    found = [match for text in TEXTS for match in re.findall(words, text)]
    assert len(found) >= 5
    for command, second, rest in found:
        leaf = group.commands[command]
        leaf = leaf.commands[second] if hasattr(leaf, "commands") else leaf
        options = {name for parameter in leaf.params for name in parameter.opts}
        assert {*re.findall(r"--[a-z-]+", rest)} <= options


def test_probes_and_scrapes_ask_routes_that_exist(paths: set[str]) -> None:
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    probes = [container[kind]["httpGet"]["path"] for kind in container if kind.endswith("Probe")]
    scrapes = [one["metrics_path"] for one in yaml.safe_load(PROMETHEUS)["scrape_configs"]]
    (health,) = re.findall(r"http://127\.0\.0\.1:8000(/[a-z/]+)", IMAGE)
    assert len(probes) == 3 and {*probes, *scrapes, health} <= paths


def test_ports_and_names_agree() -> None:
    port = Settings.model_fields["port"].default
    (container,) = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    assert [one["containerPort"] for one in container["ports"]] == [port]
    assert f"EXPOSE {port}" in IMAGE
    services = yaml.safe_load(COMPOSE)["services"]
    assert services["lorasmith"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    (scrape,) = yaml.safe_load(PROMETHEUS)["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"{name}:{port}" for name in REPLICAS]}]
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    assert of_kind("Service")["spec"]["selector"] == labels
    assert of_kind("Service")["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    credentials = Path(scrape["authorization"]["credentials_file"])
    assert credentials.name in services["prometheus"]["secrets"]


def test_the_data_lies_in_a_folder_of_the_volume_of_one_process() -> None:
    data = Path(environment(IMAGE)["LORASMITH_DATA"])
    assert str(data.parent) == VOLUME and f"VOLUME {VOLUME}" in IMAGE
    assert f"data:{VOLUME}" in yaml.safe_load(COMPOSE)["services"]["lorasmith"]["volumes"]
    spec = of_kind("Deployment")["spec"]
    pod = spec["template"]["spec"]
    for container in (*pod["initContainers"], *pod["containers"]):
        assert {"name": "data", "mountPath": VOLUME} in container["volumeMounts"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_replicas_share_a_database_and_objects_and_no_folder() -> None:
    services = yaml.safe_load(COMPOSE)["services"]
    one, two = (services[name] for name in REPLICAS)
    assert one["environment"] == two["environment"] and one["volumes"] != two["volumes"]
    assert one["ports"] != two["ports"]
    url = make_url(one["environment"]["LORASMITH_DATABASE"])
    database = services[url.host]["environment"]
    assert database["POSTGRES_USER"] == url.username == url.database
    assert database["POSTGRES_PASSWORD"] == one["environment"]["PGPASSWORD"]
    host, port = re.findall(r"//([a-z]+):(\d+)", one["environment"]["AWS_ENDPOINT_URL"])[0]
    assert f":{port}" in services[host]["command"]
    bucket = one["environment"]["LORASMITH_OBJECTS"].split("/")[2]
    (folder,) = [volume.split(":")[1] for volume in services[host]["volumes"]]
    assert folder in services[host]["command"] and f" {host} {folder}/{bucket}\n" in COMPOSE
    for name, value in (
        ("ROOT_ACCESS_KEY", "ACCESS_KEY_ID"),
        ("ROOT_SECRET_KEY", "SECRET_ACCESS_KEY"),
    ):
        assert services[host]["environment"][name] == one["environment"][f"AWS_{value}"]


def test_there_is_time_to_stop() -> None:
    stop = Settings.model_fields["stop_seconds"].default + GRACE_SECONDS
    pod = of_kind("Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + stop
    compose = yaml.safe_load(COMPOSE)["services"]["lorasmith"]
    assert int(compose["stop_grace_period"].removesuffix("s")) > stop


def test_nobody_is_root() -> None:
    (user,) = re.findall(r"^USER (\d+)$", IMAGE, re.MULTILINE)
    context = of_kind("Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert int(user) > 0 and f"--uid {user} " in IMAGE
    assert context["runAsNonRoot"] and context["runAsUser"] == context["fsGroup"] == int(user)


def test_the_image_is_made_of_what_is_here() -> None:
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", IMAGE, re.MULTILINE):
        for source in sources.split():
            assert (tiny.ROOT / source).exists(), source
    folders = {*re.findall(r"^COPY ([a-z]+) \./", IMAGE, re.MULTILINE)}
    packages = {file.parent.name for file in tiny.ROOT.glob("*/__init__.py")}
    assert folders == packages - {"tests", "benchmarks"}
    for package in MODEL_PACKAGES.values():
        assert package in IMAGE
    (extras,) = re.findall(r"'\.\[([a-z,]+)\]'", IMAGE)
    project = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]
    assert {*extras.split(",")} <= {*project["optional-dependencies"]}
    assert re.search(r"FROM python:3\.11-slim$", IMAGE, re.MULTILINE)
