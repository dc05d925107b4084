"""The kubelet's two APIs over unix sockets, as protobuf and gRPC code generated from the two files beside this one."""
