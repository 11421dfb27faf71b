"""The only room that knows MTEB.

`import mteb` makes the folder of MTEB's cache, and fails where that cannot be written. Runs of this project do not use
that cache, so where only the default is to blame a temporary folder takes its place.
"""

import atexit
import os
import shutil
import tempfile

from stella_mteb.errors import EnvironmentProblem
from stella_mteb.files.folders import mteb_cache_folder, require_writable_cache

try:
    require_writable_cache(mteb_cache_folder(), "MTEB_CACHE")
except EnvironmentProblem:
    if os.environ.get("MTEB_CACHE"):
        raise
    os.environ["MTEB_CACHE"] = tempfile.mkdtemp(prefix="stella-mteb-")
    atexit.register(shutil.rmtree, os.environ["MTEB_CACHE"], ignore_errors=True)
