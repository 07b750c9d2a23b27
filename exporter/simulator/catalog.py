"""The flavors, resource pools and users of the simulated region."""

from dataclasses import dataclass
from typing import Literal

DEFAULT_WORKSPACE = "0"
VISION_WORKSPACE = "5f0c2b7e9d3a4c1e8b6f7a2d4c9e1b30"

Tells = Literal["flavor_detail", "allocated", "pool_info", "flavor_id"]
"""The field of a job that has the cards per node; ``flavor_detail``: public pool only.

With ``allocated``, the resources requested are shown before the first start, and those allocated,
with the product, from then on. With ``flavor_id``, no field has CPU cores and memory.
"""


@dataclass(frozen=True, slots=True)
class User:
    """An IAM user who creates jobs; the id is 32 hexadecimal digits."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Flavor:
    """The share of one node; ``id`` is None in dedicated CPU pools, which have no flavors."""

    id: str | None
    name: str
    cards: int
    cpu_cores: int
    memory_gb: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes that jobs queue for.

    ``id`` is None for the public pool, which has a part for every accelerator. ``flavor_type`` and
    ``product`` are ``unknown`` if no field of a job's document ever has them.

    Attributes:
        workspace: the workspace whose list has the pool.
        trial_nodes: nodes that long jobs of the living world leave to short ones.
        programs: key of its programs in `recipes.RECIPES`; empty: the flavor type.
        spelling: of the product in documents; empty: as ``product``.
        cards_if_none: allocated resources of CPU jobs have the number of cards, 0.
        group: ``id`` is that of a group of pools, for federated jobs.
    """

    name: str
    id: str | None
    flavor_type: str
    product: str
    card_memory: str
    nodes: int
    node_cards: int
    tells: Tells
    flavors: tuple[Flavor, ...]
    workspace: str = DEFAULT_WORKSPACE
    trial_nodes: int = 0
    programs: str = ""
    spelling: str = ""
    cards_if_none: bool = False
    group: bool = False

    @property
    def capacity(self) -> int:
        """Number of cards, or of nodes in CPU pools."""
        return self.nodes * max(self.node_cards, 1)

    @property
    def node_cpu_cores(self) -> int:
        """CPU cores of one node."""
        return max(flavor.cpu_cores for flavor in self.flavors)

    @property
    def node_memory_gb(self) -> int:
        """Memory of one node."""
        return max(flavor.memory_gb for flavor in self.flavors)

    @property
    def label(self) -> str:
        """The id of the pool or of the group, or ``public``."""
        return self.id or "public"


@dataclass(frozen=True, slots=True)
class Role:
    """One task of a heterogeneous job, on ``nodes`` nodes."""

    name: str
    flavor_type: str
    product: str
    card_memory: str
    flavor: Flavor
    nodes: int = 1


def visual(cards: int) -> Flavor:
    """Return the flavor of a dedicated pool with 1, 2, 4, 8 or 16 cards per node."""
    size = "xlarge" if cards == 1 else f"{cards}xlarge"
    return Flavor(f"modelarts.pool.visual.{size}", "", cards, 24 * cards, 192 * cards)


ASCEND_PUBLIC = Pool(
    name="public-ascend",
    id=None,
    flavor_type="Ascend",
    product="Ascend-D910B",
    card_memory="32GB",
    nodes=12,
    node_cards=8,
    tells="flavor_detail",
    flavors=(
        Flavor("modelarts.kat1.xlarge", "Ascend: 1*Ascend-D910B(32GB) | ARM: 24 vCPUs", 1, 24, 96),
        Flavor("modelarts.kat1.8xlarge", "Ascend: 8*Ascend-D910B(32GB) | ARM: 192", 8, 192, 720),
    ),
    trial_nodes=2,
)
GPU_PUBLIC = Pool(
    name="public-gpu",
    id=None,
    flavor_type="GPU",
    product="GP-Vnt1",
    card_memory="32GB",
    nodes=6,
    node_cards=8,
    tells="flavor_detail",
    flavors=(
        Flavor("modelarts.vm.gpu.v100", "Computing GPU(Vnt1) instance", 1, 8, 64),
        Flavor("modelarts.p3.8xlarge", "Computing GPU(8*Vnt1) instance", 8, 64, 512),
    ),
    trial_nodes=1,
)
CPU_PUBLIC = Pool(
    name="public-cpu",
    id=None,
    flavor_type="CPU",
    product="unknown",
    card_memory="",
    nodes=40,
    node_cards=0,
    tells="flavor_detail",
    flavors=(Flavor("modelarts.vm.cpu.8u", "Computing CPU(8U) instance", 0, 8, 32),),
    trial_nodes=12,
)
LLM_POOL = Pool(
    name="llm-pretraining",
    id="llm-pretraining-0f3c7d92",
    flavor_type="Ascend",
    product="ascend-Snt9b",
    card_memory="64GB",
    nodes=32,
    node_cards=8,
    tells="allocated",
    flavors=(visual(8), visual(4)),
)
VISION_POOL = Pool(
    name="vision",
    id="pool-8c21e4aa",
    flavor_type="GPU",
    product="nvidia-Ant8",
    card_memory="80GB",
    nodes=8,
    node_cards=8,
    tells="pool_info",
    flavors=(visual(1), visual(2), visual(4), visual(8)),
    trial_nodes=1,
)
OLD_POOL = Pool(
    name="lab-old",
    id="pool-1b90d7f3",
    flavor_type="Ascend",  # shown by the engine only
    product="unknown",
    card_memory="32GB",
    nodes=4,
    node_cards=8,
    tells="flavor_id",
    flavors=(visual(1), visual(8)),
    trial_nodes=1,
)
PREPARATION_POOL = Pool(
    name="data-preparation",
    id="pool-c5d6e0b4",
    flavor_type="unknown",  # CPUs, but jobs in dedicated CPU pools show no flavor and no type
    product="unknown",
    card_memory="",
    nodes=16,
    node_cards=0,
    tells="allocated",
    flavors=(Flavor(None, "", 0, 16, 64),),
)

RESEARCH_POOL = Pool(
    name="research",
    id="pool-2f60b9d8",
    flavor_type="GPU",  # shown by the product only, once a job has been allocated
    product="nvidia-ant03",
    card_memory="80GB",
    nodes=8,
    node_cards=8,
    tells="allocated",
    flavors=(Flavor(None, "", 1, 24, 192), Flavor(None, "", 8, 192, 1536)),
    workspace=VISION_WORKSPACE,
    trial_nodes=1,
    programs="image",
)
SUPERNODE_GROUP = Pool(
    name="supernodes",
    id="pool-group-7e1d04",
    flavor_type="Ascend",
    product=LLM_POOL.product,
    card_memory="64GB",
    nodes=6,
    node_cards=16,
    tells="pool_info",
    flavors=(visual(16), visual(8)),
    spelling="ascend-snt9b",
    group=True,
)
FEATURE_POOL = Pool(
    name="features",
    id="pool-93a7c15e",
    flavor_type="CPU",  # shown by the number of cards only, once a job has been allocated
    product="unknown",
    card_memory="",
    nodes=10,
    node_cards=0,
    tells="allocated",
    flavors=(Flavor(None, "", 0, 32, 128),),
    cards_if_none=True,
)
CPU_ECONOMY = Pool(
    name="public-cpu-economy",
    id=None,
    flavor_type="CPU",  # shown by the flavor id only
    product="unknown",
    card_memory="",
    nodes=20,
    node_cards=0,
    tells="flavor_id",
    flavors=(
        Flavor("modelarts.vm.cpu.8ud", "Computing CPU(8U) instance", 0, 8, 32),
        Flavor("modelarts.vm.cpu.2u", "Computing CPU(2U) instance", 0, 2, 8),
    ),
    trial_nodes=4,
)

POOLS = (
    ASCEND_PUBLIC,
    GPU_PUBLIC,
    CPU_PUBLIC,
    LLM_POOL,
    VISION_POOL,
    OLD_POOL,
    PREPARATION_POOL,
)
"""Pools whose jobs are as the vendor's documentation has them."""
NEWER_POOLS = (RESEARCH_POOL, SUPERNODE_GROUP, FEATURE_POOL, CPU_ECONOMY)
"""Pools whose jobs only newer documents and clients explain."""
REGION = POOLS + NEWER_POOLS

GPU_ROLES = (
    Role("learner", "GPU", GPU_PUBLIC.product, "32GB", GPU_PUBLIC.flavors[1]),
    Role("worker", "CPU", "", "", CPU_PUBLIC.flavors[0], nodes=3),
)
"""The tasks of a ``"job_template": "Template RL"``: 4 nodes, 8 cards in total."""
ASCEND_ROLES = (
    Role("learner", "Ascend", ASCEND_PUBLIC.product, "32GB", ASCEND_PUBLIC.flavors[1]),
    Role("actor", "Ascend", ASCEND_PUBLIC.product, "32GB", ASCEND_PUBLIC.flavors[0]),
    Role("worker", "CPU", "", "", CPU_PUBLIC.flavors[0], nodes=2),
)
"""As `GPU_ROLES`, on Ascend: 4 nodes, 9 cards in total."""

USERS = (
    User("li.wei", "0a4f3c1d5b7e4e0f9c8d2b6a1e3f5d70"),
    User("zhang_min", "1b5e4d2c6a8f4f1e8d9c3a7b2f4e6c81"),
    User("ei_modelarts_q00357245_01", "2c6d5e3b798a402d9eab4c8d3a5f7b92"),
    User("svc-nightly", "3d7c6f4a8a9b413cafbc5d9e4b6a8ca3"),
    User("chen.yu@vision", "4e8b7a598bac424bb0cd6eaf5c7b9db4"),
)
