# SPDX-License-Identifier: Apache-2.0
"""One engine in a process of its own, for the benchmark: a line in, a line of JSON out."""

from __future__ import annotations

import json
from pathlib import Path
import sys
import time
from typing import Any

from mtl_perception.errors import MtlPerceptionError
from mtl_perception.evaluation.memory import peak_mib


def main() -> int:
    """Open the engine that argument 1 describes, then answer `run` and `end` from stdin."""
    wish = json.loads(sys.argv[1])
    started, used = time.perf_counter(), time.process_time()
    from mtl_perception.inference.cache import EngineCache
    from mtl_perception.inference.engine import open_engine
    from mtl_perception.inference.verification import measure_engine
    from mtl_perception.manifest import CHECK_FILE
    import numpy as np
    from safetensors.numpy import load_file

    bundle = Path(wish['bundle'])
    cache = EngineCache(Path(wish['cache'])) if wish['cache'] else None
    check = load_file(bundle / CHECK_FILE)
    image = np.repeat(check['input.image'], wish['batch'], axis=0)
    scale = np.repeat(check['input.depth_scale'], wish['batch'], axis=0)
    try:
        engine = open_engine(
            bundle, wish['engine'], threads=wish['threads'], precision=wish['precision'],
            cache=cache,
        )  # fmt: skip
        engine.run(image, scale)
        startup_s = time.perf_counter() - started
        startup_processor_s = time.process_time() - used
        errors = measure_engine(engine, bundle)
    except MtlPerceptionError as error:
        _answer({'error': str(error)})
        return 0
    _answer({
        'startup_s': startup_s, 'startup_processor_s': startup_processor_s, 'errors': errors,
    })  # fmt: skip
    for line in sys.stdin:
        if line.strip() == 'end':
            break
        begun = time.perf_counter()
        engine.run(image, scale)
        _answer({'ms': (time.perf_counter() - begun) * 1e3})
    _answer({'peak_memory_mib': peak_mib()})
    engine.close()
    return 0


def _answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == '__main__':
    sys.exit(main())
