"""Our answers about Enflame GCUs where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers(
    placed={
        "DRS: profiles that round up": {  # the sixth of six slices
            "hami.io/enflame-vgpu-devices-allocated": "node-1-enflame-drs-0,Enflame,6144,17:;",
        },
        "DRS: guessed unit": {"node-1": "1/1 ModeNotFit"},
    },
    placed_alike=frozenset({"seed: vgcu with a percentage"}),
    admitted={"seed: vgcu with a percentage": {}},  # with a warning
    denied={
        "memory 16Gi": (
            403,
            "enflame.com/gcu-memory 16Gi in container c0 is too much: enflame.com/gcu-memory counts MiB: write 16384",
        ),
    },
)
