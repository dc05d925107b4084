"""Our answers about MetaX GPUs, whole and shared, where HAMi's are known weaknesses.

HAMi remembers what QoS a card should have, forgets it only when the node reports that very QoS, and believes it of pods
that are long gone. Ours asks who is on the card.
"""

from tests.compat.answers.answers import Answers


def _shared(*groups: str) -> dict[str, str]:
    return {"hami.io/metax-sgpu-devices-allocated": "".join(f"{group}:" for group in groups) + ";"}


ANSWERS = Answers(
    placed={
        "whole GPUs: two containers": {
            "hami.io/metax-gpu-devices-allocated": "node-1-metax-3,Metax-GPU,65536,100:;"
            "node-1-metax-2,Metax-GPU,65536,100:;"
        },
        "sGPU: memory written 1000": {"node-1": "1/1 CardInsufficientMemory"},
        "random 4": {"node-1": "4/4 ExclusiveDeviceAllocateConflict"},
        "random 6": _shared("GPU-node-1-2,Metax-SGPU,8192,25", "GPU-node-1-1,Metax-SGPU,8192,25"),
    },
    overruled=frozenset({"random 4", "random 6"}),
)
