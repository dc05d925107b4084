"""Our answers about AWS Neuron devices where HAMi's are known weaknesses."""

from tests.compat.answers.answers import Answers

ANSWERS = Answers(
    placed={
        "containers by device and by core in one pod": {
            "AWS_NEURON_IDS": "0,1,2,3,10",
            "NEURON_RESOURCE_TYPE": "aws.amazon.com/neuroncore",
        },
        "four cores a device": {"hami.io/aws-neuron-devices-allocated": "node-1-AWSNeuron-3,AWSNeuron,0,15:;"},
    },
)
