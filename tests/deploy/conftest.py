"""The real helm, once."""

import pytest
from deploy.manifests import Helm, find_helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    return Helm(find_helm(), tmp_path_factory.mktemp("helm"))
