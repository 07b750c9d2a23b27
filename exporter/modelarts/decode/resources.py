"""The JSON schema of what a job runs on: ``spec.resource`` and ``tasks[].task_resource``.

As in `exporter.modelarts.decode.schema`: only the fields needed, each may be absent or null. Where
an object belongs and something else is, all numbers of the object are NaN, see `Amount`.
"""

from typing import Annotated, TypeAlias

import msgspec

from exporter.modelarts.decode.lenient import IF_INVALID, Amount, Text

_NAN = float("nan")


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


_NO_CPU = Cpu(_NAN)
_NO_CARDS = Accelerator(_NAN)
_NO_MEMORY = Memory(_NAN)


class FlavorInfo(msgspec.Struct, frozen=True, gc=False):
    """``flavor_info`` of a flavor."""

    cpu: Annotated[Cpu | None, msgspec.Meta(extra={IF_INVALID: _NO_CPU})] = None
    npu: Annotated[Accelerator | None, msgspec.Meta(extra={IF_INVALID: _NO_CARDS})] = None
    gpu: Annotated[Accelerator | None, msgspec.Meta(extra={IF_INVALID: _NO_CARDS})] = None
    memory: Annotated[Memory | None, msgspec.Meta(extra={IF_INVALID: _NO_MEMORY})] = None


_NO_INFO = FlavorInfo(_NO_CPU, _NO_CARDS, _NO_CARDS, _NO_MEMORY)
_FlavorInfo: TypeAlias = Annotated[FlavorInfo | None, msgspec.Meta(extra={IF_INVALID: _NO_INFO})]


class Flavor(msgspec.Struct, frozen=True, gc=False):
    """``flavor_detail``."""

    flavor_type: Text = None
    flavor_info: _FlavorInfo = None


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
    flavor_info: _FlavorInfo = None
    flavor_detail: Annotated[
        Flavor | None, msgspec.Meta(extra={IF_INVALID: Flavor(None, _NO_INFO)})
    ] = None
    node_count: Amount = None
    pool_id: Text = None
    pool_group_id: Text = None
    pool_name: Text = None
    main_container_allocated_resources: Annotated[
        AllocatedResources | None,
        msgspec.Meta(extra={IF_INVALID: AllocatedResources(_NAN, _NAN, _NAN)}),
    ] = None
    main_container_customized_flavor: Annotated[
        CustomizedFlavor | None,
        msgspec.Meta(extra={IF_INVALID: CustomizedFlavor(_NAN, _NAN, _NAN)}),
    ] = None
    pool_info: Annotated[
        PoolInfo | None, msgspec.Meta(extra={IF_INVALID: PoolInfo(_NAN, _NAN, _NAN)})
    ] = None
