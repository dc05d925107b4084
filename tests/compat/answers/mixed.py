"""Our answers about several vendors in one cluster, or one pod, where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers(
    placed={  # the same node and card, without the annotations of a vendor that the pod does not ask for
        "node score mixes vendors": {"hami.io/vgpu-devices-allocated": "GPU-node-1-0,NVIDIA,100,1:;"},
    },
    placed_alike=frozenset(
        {"two vendors in one pod need a node with both", "one vendor's pod on a node with two vendors"}
    ),  # but for empty groups, which are read as none
)
