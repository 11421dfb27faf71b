"""The adapter between this project and MTEB; no other room imports MTEB.

`import mteb` creates MTEB's cache folder and fails where that folder cannot be written. This project does not use the
cache, so a temporary folder replaces the default one if it is not writable.
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
