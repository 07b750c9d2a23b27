"""The JSON schema of what a job runs on: ``spec.resource`` and ``tasks[].task_resource``.

As in `exporter.modelarts.decode.schema`: only the fields needed, each may be absent or null.
"""

import msgspec

from exporter.modelarts.decode.lenient import Amount, Text


class Accelerator(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.npu`` and ``flavor_info.gpu``: cards of one node."""

    unit_num: Amount = None
    product_name: Text = None


class Cpu(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.cpu``: CPU cores of one node."""

    core_num: Amount = None


class Memory(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info.memory``: memory of one node."""

    size: Amount = None
    unit: Text = None


class FlavorInfo(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info`` of a flavor."""

    cpu: Cpu | None = None
    npu: Accelerator | None = None
    gpu: Accelerator | None = None
    memory: Memory | None = None


class Flavor(msgspec.Struct, frozen=True, gc=False):
    """``flavor_detail``."""

    flavor_type: Text = None
    flavor_info: FlavorInfo | None = None


class CustomizedFlavor(msgspec.Struct, frozen=True, gc=False):
    """Newer ``main_container_customized_flavor``: requested, of one node; ``mem_size`` in GiB."""

    cpu_core_num: Amount = None
    mem_size: Amount = None
    accelerator_num: Amount = None


class AllocatedResources(msgspec.Struct, frozen=True, gc=False):
    """Newer ``main_container_allocated_resources``: of one node; ``mem_size`` in GiB."""

    cpu_core_num: Amount = None
    mem_size: Amount = None
    accelerator_num: Amount = None
    accelerator_type: Text = None


class PoolInfo(msgspec.Struct, frozen=True, gc=False):
    """Newer ``pool_info``: the flavor requested, of one node; ``mem_size`` in GiB."""

    core_num: Amount = None
    mem_size: Amount = None
    accelerator_num: Amount = None
    accelerator_type: Text = None
    pool_resource_flavor: Text = None


class Resource(msgspec.Struct, frozen=True, gc=False):
    """``spec.resource`` and ``tasks[].task_resource``: each may have the fields of the other."""

    policy: Text = None
    flavor_id: Text = None
    flavor_type: Text = None
    flavor_info: FlavorInfo | None = None
    flavor_detail: Flavor | None = None
    node_count: Amount = None
    pool_id: Text = None
    pool_group_id: Text = None
    pool_name: Text = None
    main_container_allocated_resources: AllocatedResources | None = None
    main_container_customized_flavor: CustomizedFlavor | None = None
    pool_info: PoolInfo | None = None
