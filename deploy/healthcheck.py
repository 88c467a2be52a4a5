"""Exit 0 if the service in this container answers; used by the image's HEALTHCHECK."""

import os
import sys
import urllib.request

try:
    with urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/readyz", timeout=2) as answer:
        healthy = answer.status == 200
except OSError:
    healthy = False
sys.exit(not healthy)
