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
import math
from pathlib import Path

import cv2
import numpy as np
from tritonclient import grpc
from tritonclient.utils import InferenceServerException


def main() -> int:
    """Print one line an image; exit code 1 where one is rejected or cannot be judged."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("server", help="host:port of the server's gRPC")
    parser.add_argument("bundle", type=Path, help="folder that hvq-edge export wrote")
    parser.add_argument("images", type=Path, help="folder of images")
    parser.add_argument("--precision", default="fp32", help="default: fp32")
    arguments = parser.parse_args()
    try:
        manifest = json.loads((arguments.bundle / "bundle.json").read_text(encoding="utf-8"))
        images = sorted(path for path in arguments.images.iterdir() if path.is_file())
    except OSError as error:
        raise SystemExit(str(error)) from None
    height, width = np.broadcast_to(manifest["input_side"], 2).tolist()
    names = manifest["categories"]
    thresholds = manifest["thresholds"].get(arguments.precision, {})
    model = "hvq_edge_" + arguments.precision.replace("-", "_")
    client = grpc.InferenceServerClient(arguments.server)
    failed = False
    for path in images:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            failed = True
            print(f"{path.name}  no decision: not an image")
            continue
        rgb = image[:, :, ::-1]
        frame = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)[None]
        frames = grpc.InferInput("frames", list(frame.shape), "UINT8")
        frames.set_data_from_numpy(frame)
        try:
            answer = client.infer(model, [frames])
        except InferenceServerException as error:
            raise SystemExit(f"{arguments.server}: {error.message()}") from None
        score = answer.as_numpy("score").item()
        chosen = answer.as_numpy("category")  # of a graph that chooses it itself
        category = names[0 if chosen is None else chosen.item()]
        limit = thresholds.get(category, {}).get("value", math.nan)
        verdict = "pass" if score <= limit else "reject" if score > limit else "no decision"
        failed |= verdict != "pass"
        print(f"{path.name}  {category}  {verdict:<6}  {score:.5g}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
