"""Our answers about Iluvatar GPUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

_CORES = "iluvatar.ai~1MR-V100.vCore"
_MEMORY = "iluvatar.ai/MR-V100.vMem"

ANSWERS = Answers(
    admitted={
        "count and cores for several cards": {
            "/spec/containers/0/env/0/name": "SOL_CONTINER_NAME",
            "/spec/containers/0/env/0/value": "c0",
            f"/spec/containers/0/resources/limits/{_CORES}": "200",
            f"/spec/containers/0/resources/requests/{_CORES}": "200",
            "/spec/schedulerName": "hami-scheduler",
        },
    },
    denied={
        "memory 16Gi": (403, f"{_MEMORY} 16Gi in container c0 is too much: {_MEMORY} counts units of 256 MiB: write 64")
    },
)
