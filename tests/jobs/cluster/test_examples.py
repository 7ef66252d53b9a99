"""The cluster files of docs/cluster.md, read by what will read them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

PAGE = Path(__file__).resolve().parents[3] / "docs/cluster.md"
FILES: dict[str, dict[str, Any]] = {
    "kuberay" if "kind" in file else "local": file
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if (file := yaml.safe_load(block))
}


def test_both_open_the_port_that_the_server_is_told() -> None:
    assert set(FILES) == {"local", "kuberay"}
    assert any("--ray-client-server-port=10001" in line for line in FILES["local"]["head_start_ray_commands"])
    (head,) = FILES["kuberay"]["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert {"containerPort": 10001, "name": "client"} in head["ports"]
    text = PAGE.read_text(encoding="utf-8")
    assert "--workers ray://HEAD:10001" in text
    assert "--workers ray://sigmagraph-head-svc:10001" in text


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_ray_up_takes_the_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(FILES["local"])
    validate_config(config)
    kind = config["available_node_types"]["local.cluster.node"]
    assert kind["resources"]["GPU"] == 1, "Ray starts no machine of which it does not know what it has"
    assert kind["max_workers"] == len(config["provider"]["worker_ips"]) + 1, "the head counts"
    assert config["head_setup_commands"] == config["worker_setup_commands"], "`setup_commands` are not read here"
    with pytest.raises(Exception, match="Additional properties"):
        validate_config({**config, "worker_ips": []})


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_kuberays_autoscaler_finds_a_gpu_on_each_worker() -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = {**FILES["kuberay"], "metadata": {**FILES["kuberay"]["metadata"], "namespace": "default"}}
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    (worker,) = (kind for name, kind in types.items() if "gpu" in name)
    assert worker["resources"]["GPU"] == 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, 8)
    (head,) = (kind for name, kind in types.items() if "head" in name)
    assert head["resources"]["CPU"] == 0, "no worker of ours begins on the head"
