"""Writes the classifier of the workloads as ONNX. Used when images are built, not in them.

    python make_model.py FILE

Weights come from a fixed seed, so that the file is the same each time. The operators are
those that both onnxruntime and OpenCV's dnn module know.
"""
import sys

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS = [1, 32, 64, 128, 256, 512]
SIDE = 64
HIDDEN = 512
CLASSES = 1000


def main(target):
    chance = numpy.random.Generator(numpy.random.PCG64(4))
    nodes, weights = [], []

    def weight(name, *shape):
        fan = int(numpy.prod(shape[1:]))
        values = chance.standard_normal(shape) * numpy.sqrt(2 / fan)
        weights.append(numpy_helper.from_array(values.astype(numpy.float32), name))
        return name

    def bias(name, size):
        weights.append(numpy_helper.from_array(numpy.zeros(size, numpy.float32), name))
        return name

    last, side = "picture", SIDE
    for step, (inner, outer) in enumerate(zip(CHANNELS, CHANNELS[1:])):
        kernel, offset = weight(f"w{step}", outer, inner, 3, 3), bias(f"b{step}", outer)
        nodes.append(helper.make_node("Conv", [last, kernel, offset], [f"c{step}"], kernel_shape=[3, 3], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{step}"], [f"r{step}"]))
        last = f"r{step}"
        if step < 4:
            nodes.append(helper.make_node("MaxPool", [last], [f"p{step}"], kernel_shape=[2, 2], strides=[2, 2]))
            last, side = f"p{step}", side // 2
    nodes.append(helper.make_node("Flatten", [last], ["flat"]))
    wide = CHANNELS[-1] * side * side
    nodes.append(helper.make_node("Gemm", ["flat", weight("w5", HIDDEN, wide), bias("b5", HIDDEN)], ["g5"], transB=1))
    nodes.append(helper.make_node("Relu", ["g5"], ["r5"]))
    nodes.append(helper.make_node("Gemm", ["r5", weight("w6", CLASSES, HIDDEN), bias("b6", CLASSES)], ["g6"], transB=1))
    nodes.append(helper.make_node("Softmax", ["g6"], ["scores"], axis=1))
    picture = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 1, SIDE, SIDE])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, CLASSES])
    graph = helper.make_graph(nodes, "classifier", [picture], [scores], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, target)


if __name__ == "__main__":
    main(sys.argv[1])
