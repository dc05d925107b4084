"""Our answers about AMD GPUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers(
    placed={
        "positions: [none, gpu]": {
            "hami.io/amd-devices-allocated": ";GPU-node-1-0,AMD_Instinct_MI300X_VF,100,30:;",
        },
    },
    placed_alike=frozenset({"seed: gpu-memory"}),  # admission warns
    admitted={"seed: gpu-memory": {"/spec/schedulerName": "hami-scheduler"}},  # with a warning
    denied={
        "cores only": (403, "amd.com/gpucores 10 in container c0 is of no card: add amd.com/gpu: 1"),
        "memory only": (403, "amd.com/gpumem 10 in container c0 is of no card: add amd.com/gpu: 1"),
    },
)
