#!/usr/bin/env python3
"""NFStream measured as a peer: flows of the capture named first to the CSV file named second, nothing but flows."""

import sys

from nfstream import NFStreamer

# As long as any capture: no flow is cut in two.
LONG = 86_400

NFStreamer(
    source=sys.argv[1],
    decode_tunnels=False,
    n_dissections=0,
    statistical_analysis=False,
    n_meters=1,
    idle_timeout=LONG,
    active_timeout=LONG,
).to_csv(path=sys.argv[2])
