"""The programs of jobs: the ``algorithm`` part of a job's document, in all its documented forms.

Environments, commands and the like contain strings that look like secrets (`PLANTED_SECRETS`),
because real ones do.
"""

from dataclasses import dataclass
from typing import Any

PLANTED_SECRETS = (
    "hf_SIMULATEDSECRETqXwErTyUiOpAsDfGh",
    "SIMULATEDSECRETKEY0123456789abcdefghijkl",
    "simulated-wandb-secret-c0ffee",
    "simulated-jupyter-secret-deadbeef",
    "simulated-git-password-hunter2",
)
"""Strings in the documents that must never appear in the output of a client."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """``prefix`` begins job names; ``document`` is the job's ``algorithm``."""

    prefix: str
    document: dict[str, Any]


def _io(name: str, where: str, direction: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": f"{direction} of the job",
        "local_dir": f"/home/ma-user/modelarts/{direction}/{name}_0",
        "remote": {"obs": {"obs_url": where}},
    }


def _dataset(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "local_dir": f"/home/ma-user/modelarts/inputs/{name}_0",
        "remote": {
            "dataset": {
                "id": "PZ0d3cGfWxyK3m8aKkC",
                "version_id": "rJ2nYvTqgA5hmGcrbT7",
                "obs_url": "/simulated-datasets/faces/v3/",
            }
        },
        "remote_constraint": [{"data_type": "dataset", "attributes": "data_format=Default"}],
    }


def _parameter(name: str, value: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "description": "",
        "constraint": {
            "type": "String",
            "editable": True,
            "required": False,
            "sensitive": False,
            "valid_type": "None",
            "valid_range": [],
        },
        "i18n_description": {"language": "en-us", "description": ""},
    }


_ENVIRONMENTS = [
    {"HF_TOKEN": PLANTED_SECRETS[0]},
    {"AWS_SECRET_ACCESS_KEY": PLANTED_SECRETS[1]},
    {"WANDB_API_KEY": PLANTED_SECRETS[2]},
]

PRETRAINING = Recipe(
    "pretrain-llm",
    {
        "command": f"git clone https://ci:{PLANTED_SECRETS[4]}@git.example/llm && python train.py",
        "code_dir": "obs://simulated-llm/code/",
        "parameters": [_parameter("lr", "1e-4"), _parameter("global_batch", "2048")],
        "inputs": [_io("corpus", "/simulated-llm/corpus/", "inputs")],
        "outputs": [_io("ckpt", "/simulated-llm/checkpoints/", "outputs")],
        "engine": {
            "engine_id": "mindspore_2.2.0-cann_7.0.0-py_3.9-euler_2.10.7-aarch64-snt9b",
            "engine_name": "Ascend-Powered-Engine",
            "engine_version": "mindspore_2.2.0-cann_7.0.0-py_3.9-euler_2.10.7-aarch64",
        },
        "local_code_dir": "/home/ma-user/modelarts/user-job-dir",
        "working_dir": "/home/ma-user/modelarts/user-job-dir/code",
        "environments": _ENVIRONMENTS,
    },
)
FINETUNING = Recipe(
    "finetune",
    {
        "id": "c9b0a4de-6ab1-4f0e-9d63-55a2d1f7b001",
        "name": "chat-finetuning",
        "parameters": [_parameter("epochs", "3")],
        "policies": {},
        "inputs": [_dataset("data_url")],
        "outputs": [_io("train_url", "/simulated-nlp/out/", "outputs")],
        "engine": {
            "engine_id": "pytorch_1.11.0-cann_6.3.0-py_3.7-euler_2.8.3-aarch64",
            "engine_name": "Ascend-Powered-Engine",
            "engine_version": "pytorch_1.11.0-cann_6.3.0-py_3.7-euler_2.8.3-aarch64",
        },
        "environments": _ENVIRONMENTS[:1],
    },
)
VISION = Recipe(
    "trainjob--py14_mem06",
    {
        "code_dir": "obs://test-crq/economic_test/py_minist/",
        "boot_file": "obs://test-crq/economic_test/py_minist/minist_common.py",
        "inputs": [_io("data_url", "/test-crq/data/py_minist/", "inputs")],
        "outputs": [_io("train_url", "/test-crq/train_output/", "outputs")],
        "engine": {
            "engine_id": "pytorch-cp36-1.4.0-v2",
            "engine_name": "PyTorch",
            "engine_version": "PyTorch-1.4.0-python3.6-v2",
        },
    },
)
CUSTOM_IMAGE = Recipe(
    "detector",
    {
        "command": f"WANDB_API_KEY={PLANTED_SECRETS[2]} bash /home/ma-user/run.sh",
        "inputs": [_io("images", "/simulated-vision/images/", "inputs")],
        "outputs": [_io("weights", "/simulated-vision/weights/", "outputs")],
        "engine": {"image_url": "simulated-vision/detector:2.4.1"},
        "environments": _ENVIRONMENTS[2:],
    },
)
SEARCH = Recipe(
    "autosearch",
    {
        "name": "resnet-search",
        "subscription_id": "7d8b9f10-31d2-4a86-8c1e-1b6b0c3fd002",
        "item_version_id": "1.0.2",
        "autosearch_config_path": "obs://simulated-search/config.yaml",
        "autosearch_framework_path": "obs://simulated-search/framework/",
        "policies": {
            "auto_search": {
                "skip_search_params": "",
                "reward_attrs": [{"name": "accuracy", "mode": "max", "regex": "acc=([0-9.]+)"}],
                "search_params": [
                    {
                        "name": "lr",
                        "param_type": "continuous",
                        "lower_bound": "0.0001",
                        "upper_bound": "0.1",
                        "discrete_points_num": "",
                        "discrete_values": [],
                    }
                ],
                "algo_configs": [
                    {
                        "name": "bayes_opt_search",
                        "params": [{"key": "num_samples", "value": "20", "type": "Integer"}],
                    }
                ],
            }
        },
        "engine": {"engine_name": "TensorFlow", "engine_version": "TF-2.1.0-python3.7-v2"},
    },
)
PREPARATION = Recipe(
    "tokenize",
    {
        "code_dir": "obs://simulated-llm/prepare/",
        "boot_file": "obs://simulated-llm/prepare/tokenize.py",
        "parameters": [_parameter("shards", "512")],
        "engine": {"engine_name": "Horovod", "engine_version": "0.16.2-TF-1.13.1-python3.6"},
        "environments": _ENVIRONMENTS[1:2],
    },
)
REINFORCEMENT = Recipe("rl-game", {"environments": _ENVIRONMENTS[:1]})
"""Heterogeneous: the other fields are in its tasks."""

RECIPES = {
    "Ascend": (PRETRAINING, FINETUNING),
    "GPU": (VISION, CUSTOM_IMAGE),
    "CPU": (SEARCH, PREPARATION),
    "unknown": (PREPARATION,),
    "image": (CUSTOM_IMAGE,),
}
"""By the pool's flavor type, or by the programs it names.

Jobs on `catalog.OLD_POOL` must name an Ascend engine; ``image`` names none.
"""
