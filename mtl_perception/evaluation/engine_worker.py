# SPDX-License-Identifier: Apache-2.0
"""One engine in a process of its own, for the benchmark: a line in, a line of JSON out."""

from __future__ import annotations

import json
from pathlib import Path
import sys
import time
from typing import Any

from mtl_perception.errors import MtlPerceptionError


def main() -> int:
    """Open the engine that argument 1 describes, then answer `run` and `end` from stdin."""
    wish = json.loads(sys.argv[1])
    started = time.perf_counter()
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
        errors = measure_engine(engine, bundle)
    except MtlPerceptionError as error:
        _answer({'error': str(error)})
        return 0
    _answer({'startup_s': startup_s, 'errors': errors})
    for line in sys.stdin:
        if line.strip() == 'end':
            break
        begun = time.perf_counter()
        engine.run(image, scale)
        _answer({'ms': (time.perf_counter() - begun) * 1e3})
    _answer({'peak_memory_mib': _peak_memory_mib()})
    engine.close()
    return 0


def _peak_memory_mib() -> float:
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path('/proc/self/status').read_text(encoding='ascii')
    kibibytes = next(line for line in status.splitlines() if line.startswith('VmHWM:')).split()[1]
    return int(kibibytes) / 1024


def _answer(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == '__main__':
    sys.exit(main())
