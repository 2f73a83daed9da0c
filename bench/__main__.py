"""All benchmarks, each in a fresh process, and their tables in bench/README.md."""

import subprocess
import sys

from bench import readme

for name in readme.TABLES:
    print(f"## {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"bench.{name}"], check=True)
readme.write()
print(f"The tables are in {readme.README}.")
