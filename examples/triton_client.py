"""Judge images with a Triton server, from a program that has no hvq-edge.

    hvq-edge export runs/latest --int8 --triton models --triton-backend python
    tritonserver --model-repository models
    python examples/triton_client.py localhost:8001 runs/latest/bundle images/

A model's thresholds stand in its bundle.json: a score above the one of its category is a reject.
Needs `pip install 'tritonclient[grpc]' opencv-python`. It lacks what `hvq-edge predict` asks of an
image before it is judged: light, focus and place, whether it shows a part that the model knows.
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
from tritonclient import grpc
from tritonclient.utils import InferenceServerException


def main() -> int:
    """Print one line an image; exit code 1 where one is rejected."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("server", help="host:port of the server's gRPC")
    parser.add_argument("bundle", type=Path, help="folder that hvq-edge export wrote")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--precision", default="fp32", help="default: fp32")
    arguments = parser.parse_args()
    manifest = json.loads((arguments.bundle / "bundle.json").read_text(encoding="utf-8"))
    height, width = np.broadcast_to(manifest["input_side"], 2).tolist()
    names = manifest["categories"]
    thresholds = manifest["thresholds"][arguments.precision]
    model = "hvq_edge_" + arguments.precision.replace("-", "_")
    client = grpc.InferenceServerClient(arguments.server)
    rejects = 0
    for path in sorted(arguments.images.iterdir()):
        image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]  # RGB
        frame = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[None]
        frames = grpc.InferInput("frames", list(frame.shape), "UINT8")
        frames.set_data_from_numpy(frame)
        try:
            answer = client.infer(model, [frames])
        except InferenceServerException as error:
            raise SystemExit(f"{arguments.server}: {error.message()}") from None
        score = answer.as_numpy("score").item()
        chosen = answer.as_numpy("category")  # of a graph that chooses it itself
        category = names[0 if chosen is None else chosen.item()]
        limit = thresholds[category]["value"]
        rejects += score > limit
        print(f"{path.name}  {category}  {'reject' if score > limit else 'pass':<6}  {score:.5g}")
    return 1 if rejects else 0


if __name__ == "__main__":
    raise SystemExit(main())
